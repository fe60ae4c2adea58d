"""How GGUF files of each ``general.architecture`` hold a model: names, and what was changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from edgec.checkpoints.gguf.values import show
from edgec.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
}
_INNER = _ATTENTION | {
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_FUSED = _INNER | {"ffn_up": "mlp.gate_up_proj"}
_FOUR_NORMS = _INNER | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_PHI = _ATTENTION | {
    "attn_output": "self_attn.dense",
    "ffn_up": "mlp.fc1",
    "ffn_down": "mlp.fc2",
}
_GPT_NEOX = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "attention.query_key_value",
    "attn_output": "attention.dense",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}


@dataclass(frozen=True)
class Architecture:
    """How the files of one ``general.architecture`` hold a model.

    Attributes:
        model_type: as ``config.json`` says it.
        class_name: of the model in transformers.
        layer: names of a layer's modules.
        outer: names of the modules outside of layers.
        layers: what stands before a layer's number.
        experts: names of a layer's modules of which one tensor holds all experts; ``{}`` is the expert.
        permuted: whether the rows of a head's queries and keys are interleaved,
            see :class:`edgec.checkpoints.gguf.orders.Halves`.
        parts: whether a fused tensor of queries, keys and values is in the order of
            :class:`edgec.checkpoints.gguf.orders.Parts`.
        raised_norms: whether the norms' weights are stored one larger than they are.
    """

    model_type: str
    class_name: str
    layer: Mapping[str, str]
    outer: Mapping[str, str] = field(default_factory=_OUTER.copy)
    layers: str = "model.layers"
    experts: Mapping[str, str] = field(default_factory=dict)
    permuted: bool = False
    parts: bool = False
    raised_norms: bool = False


_MIXTRAL = Architecture(
    "mixtral",
    "MixtralForCausalLM",
    _ATTENTION | {"ffn_gate_inp": "block_sparse_moe.gate"},
    experts={
        "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
        "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
        "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
    },
    permuted=True,
)
"""Its files call themselves ``llama``."""

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "llama": Architecture("llama", "LlamaForCausalLM", _INNER, permuted=True),
        "mistral": Architecture("mistral", "MistralForCausalLM", _INNER, permuted=True),
        "minicpm": Architecture("minicpm", "MiniCPMForCausalLM", _INNER, permuted=True),
        "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", _INNER),
        "qwen3": Architecture("qwen3", "Qwen3ForCausalLM", _INNER),
        "qwen3moe": Architecture(
            "qwen3_moe",
            "Qwen3MoeForCausalLM",
            _INNER | {"ffn_gate_inp": "mlp.gate"},
            experts={
                "ffn_gate_exps": "mlp.experts.{}.gate_proj",
                "ffn_up_exps": "mlp.experts.{}.up_proj",
                "ffn_down_exps": "mlp.experts.{}.down_proj",
            },
        ),
        "phi2": Architecture(
            "phi",
            "PhiForCausalLM",
            _PHI,
            outer={**_OUTER, "output_norm": "model.final_layernorm"},
        ),
        "phi3": Architecture("phi3", "Phi3ForCausalLM", _FUSED),
        "gemma": Architecture("gemma", "GemmaForCausalLM", _INNER, raised_norms=True),
        "gemma2": Architecture("gemma2", "Gemma2ForCausalLM", _FOUR_NORMS, raised_norms=True),
        "gemma3": Architecture("gemma3_text", "Gemma3ForCausalLM", _FOUR_NORMS, raised_norms=True),
        "stablelm": Architecture("stablelm", "StableLmForCausalLM", _INNER),
        "gptneox": Architecture(
            "gpt_neox",
            "GPTNeoXForCausalLM",
            _GPT_NEOX,
            outer={
                "token_embd": "gpt_neox.embed_in",
                "output_norm": "gpt_neox.final_layer_norm",
                "output": "embed_out",
            },
            layers="gpt_neox.layers",
            parts=True,
        ),
    }
)


def find_architecture(metadata: Mapping[str, Any], where: str) -> tuple[str, Architecture]:
    """The file's architecture and its name.

    Raises:
        CheckpointError: the file doesn't name one.
        UnsupportedModelError: it is one that edgec can't read from GGUF.
    """
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        raise CheckpointError(
            f"its metadata general.architecture is {show(name)}",
            where=where,
            remedy="give a GGUF file of a language model",
        )
    found = ARCHITECTURES.get(name)
    if found is None:
        raise UnsupportedModelError(
            f"its architecture is {show(name)}; from GGUF edgec reads {', '.join(ARCHITECTURES)}",
            where=where,
            remedy="use the model's Hugging Face folder if edgec has its family",
        )
    if name == "llama" and metadata.get("llama.expert_count", 0) not in (0, None):
        found = _MIXTRAL
    return name, found
