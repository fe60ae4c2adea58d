"""The fields of ``config.json`` that only some families have, from a GGUF file."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgec.checkpoints.gguf.fields import Fields
    from edgec.checkpoints.gguf.header import Entry

    Tensors = Mapping[str, Entry]
    Config = Mapping[str, Any]
    Read = Callable[[Fields, Tensors, Config], dict[str, Any]]

# Layers of the models whose queries are scaled by the width of a head as hidden size and heads
# give it, which no metadata says.
_WIDE_QUERIES = {"gemma2": 46, "gemma3_text": 62}


def own_fields(model_type: str, read: Fields, tensors: Tensors, config: Config) -> dict[str, Any]:
    """The fields beside those that every family has.

    Args:
        model_type: of the config.
        read: the metadata.
        tensors: of the file.
        config: the fields that every family has.

    Raises:
        CheckpointError: a field is missing or impossible.
    """
    found = _FAMILIES.get(model_type)
    return {} if found is None else found(read, tensors, config)


def _bias(tensors: Tensors) -> dict[str, Any]:
    return {"attention_bias": "blk.0.attn_q.bias" in tensors}


def _window(read: Fields) -> dict[str, Any]:
    return {"sliding_window": read.integer("attention.sliding_window", 0) or None}


def _chosen(read: Fields) -> dict[str, Any]:
    return {"num_experts_per_tok": read.integer("expert_used_count")}


def _llama(_read: Fields, tensors: Tensors, _config: Config) -> dict[str, Any]:
    return {
        **_bias(tensors),
        "mlp_bias": "blk.0.ffn_up.bias" in tensors,
        "hidden_act": "silu",
    }


def _mistral(read: Fields, tensors: Tensors, config: Config) -> dict[str, Any]:
    return {**_llama(read, tensors, config), **_window(read)}


def _mixtral(read: Fields, _tensors: Tensors, _config: Config) -> dict[str, Any]:
    return {**_window(read), "num_local_experts": read.integer("expert_count"), **_chosen(read)}


def _qwen3(_read: Fields, tensors: Tensors, _config: Config) -> dict[str, Any]:
    return _bias(tensors)


def _qwen3_moe(read: Fields, tensors: Tensors, config: Config) -> dict[str, Any]:
    """llama.cpp always makes the weights of the chosen experts add up to one."""
    layers = range(config["num_hidden_layers"])
    return {
        **_bias(tensors),
        "num_experts": read.integer("expert_count"),
        **_chosen(read),
        "moe_intermediate_size": read.integer("expert_feed_forward_length"),
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [n for n in layers if f"blk.{n}.ffn_gate_inp.weight" not in tensors],
    }


def _minicpm(read: Fields, tensors: Tensors, config: Config) -> dict[str, Any]:
    """Files have what the scales multiply by, the config what they are made from."""
    layers, hidden = config["num_hidden_layers"], config["hidden_size"]
    depth = read.number("residual_scale") * math.sqrt(layers)
    return {
        **_bias(tensors),
        "scale_emb": read.number("embedding_scale"),
        # The scale was rounded to float32; published depths have few digits.
        "scale_depth": float(f"{depth:.6g}"),
        "dim_model_base": max(1, round(hidden / read.number("logit_scale"))),
    }


def _phi(_read: Fields, _tensors: Tensors, _config: Config) -> dict[str, Any]:
    return {"hidden_act": "gelu_new"}


def _phi3(read: Fields, _tensors: Tensors, _config: Config) -> dict[str, Any]:
    return _window(read)


def _stablelm(read: Fields, tensors: Tensors, _config: Config) -> dict[str, Any]:
    return {
        "hidden_act": "silu",
        "use_qkv_bias": "blk.0.attn_q.bias" in tensors,
        "use_parallel_residual": read.flag("use_parallel_residual"),
        "qk_layernorm": "blk.0.attn_q_norm.weight" in tensors,
    }


def _gpt_neox(read: Fields, tensors: Tensors, _config: Config) -> dict[str, Any]:
    return {
        "hidden_act": "gelu",
        "attention_bias": "blk.0.attn_qkv.bias" in tensors,
        "use_parallel_residual": read.flag("use_parallel_residual"),
    }


def _gemma(_read: Fields, _tensors: Tensors, _config: Config) -> dict[str, Any]:
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_act": "gelu_pytorch_tanh",
        "attention_bias": False,
    }


def _later_gemma(read: Fields, config: Config, period: int) -> dict[str, Any]:
    """Gemma 2 and 3: every layer of number ``period`` sees the whole context."""
    layers = config["num_hidden_layers"]
    wide = layers == _WIDE_QUERIES[config["model_type"]]
    scale = config["hidden_size"] // config["num_attention_heads"] if wide else config["head_dim"]
    return {
        "query_pre_attn_scalar": scale,
        "sliding_window": read.integer("attention.sliding_window"),
        "layer_types": [
            "full_attention" if (layer + 1) % period == 0 else "sliding_attention"
            for layer in range(layers)
        ],
    }


def _gemma2(read: Fields, tensors: Tensors, config: Config) -> dict[str, Any]:
    return {
        **_gemma(read, tensors, config),
        **_later_gemma(read, config, 2),
        "attn_logit_softcapping": read.number("attn_logit_softcapping"),
        "final_logit_softcapping": read.number("final_logit_softcapping"),
    }


def _gemma3(read: Fields, tensors: Tensors, config: Config) -> dict[str, Any]:
    return {
        **_gemma(read, tensors, config),
        **_later_gemma(read, config, 6),
        "rope_local_base_freq": read.number("rope.freq_base_swa", 10000.0),
    }


_FAMILIES: Mapping[str, Read] = MappingProxyType(
    {
        "llama": _llama,
        "mistral": _mistral,
        "mixtral": _mixtral,
        "minicpm": _minicpm,
        "qwen3": _qwen3,
        "qwen3_moe": _qwen3_moe,
        "phi": _phi,
        "phi3": _phi3,
        "stablelm": _stablelm,
        "gpt_neox": _gpt_neox,
        "gemma": _gemma,
        "gemma2": _gemma2,
        "gemma3_text": _gemma3,
    }
)
