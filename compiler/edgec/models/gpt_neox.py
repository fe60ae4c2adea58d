"""GPT-NeoX, Pythia and RedPajama-INCITE: a head's query, key and value together in one tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.models.blocks import ACTIVATIONS, MLP, DecoderLayer, LayerNorm, ParallelLayer
from edgec.models.dense import DenseConfig, dense_attention, dense_fields, dense_model
from edgec.models.hf_config import ConfigReader

if TYPE_CHECKING:
    from edgec.models.causal_lm import CausalLM

IGNORED_TENSORS = (
    "*.rotary_emb.inv_freq",
    "*.attention.bias",
    "*.attention.masked_bias",
)
"""Tables of old checkpoints: frequencies that follow from the config, the causal mask."""

_NAMES = {
    "model": "gpt_neox",
    "embed_tokens": "embed_in",
    "self_attn": "attention",
    "qkv_proj": "query_key_value",
    "o_proj": "dense",
    "up_proj": "dense_h_to_4h",
    "down_proj": "dense_4h_to_h",
    "norm": "final_layer_norm",
    "lm_head": "embed_out",
}


@dataclass(frozen=True)
class Config(DenseConfig):
    """The fields of ``config.json`` that shape the model."""

    hidden_act: str
    attention_bias: bool
    parallel: bool

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> Config:
        """Read a Hugging Face config.

        Raises:
            CheckpointError: a field is missing or impossible.
            UnsupportedModelError: a feature this family has no code for.
        """
        read = ConfigReader(config)
        read.only("hidden_act", tuple(ACTIVATIONS), default="gelu")
        read.require(
            config.get("num_key_value_heads") in (None, config.get("num_attention_heads")),
            "num_key_value_heads",
            "every query head of this architecture has a key-value head of its own",
        )
        # The names that this architecture had for them before transformers 5.
        renamed = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
        rope = {name: config[old] for name, old in renamed.items() if config.get(old) is not None}
        fields = dense_fields(
            {**rope, **config}, eps="layer_norm_eps", default_eps=1e-5, default_rotary=0.25
        )
        return cls(
            **fields,
            hidden_act=config.get("hidden_act") or "gelu",
            attention_bias=read.flag("attention_bias", default=True),
            parallel=read.flag("use_parallel_residual", default=True),
        )


def build(config: Config, dtype: str) -> CausalLM:
    """The model with plain weights, hidden states in ``dtype``."""
    hidden, eps = config.hidden_size, config.norm_eps

    def layer(index: int) -> DecoderLayer | ParallelLayer:
        attention = dense_attention(
            config,
            index,
            dtype,
            qkv_bias=config.attention_bias,
            out_bias=config.attention_bias,
            stored="by_head",
        )
        mlp = MLP(hidden, config.intermediate_size, config.hidden_act, bias=True, dtype=dtype)
        if not config.parallel:
            return DecoderLayer(attention, mlp, hidden, eps, norm=LayerNorm, dtype=dtype)
        return ParallelLayer(attention, mlp, hidden, eps, norm=LayerNorm, shared=False, dtype=dtype)

    return dense_model(config, layer, dtype, norm=LayerNorm, names=_NAMES)
