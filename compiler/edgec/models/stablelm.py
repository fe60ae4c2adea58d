"""StableLM 3B, Zephyr and StableLM 2: Llama with LayerNorm and heads that are rotated in part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.models.blocks import DecoderLayer, GatedMLP, LayerNorm, ParallelLayer
from edgec.models.dense import DenseConfig, dense_attention, dense_fields, dense_model
from edgec.models.hf_config import ConfigReader

if TYPE_CHECKING:
    from edgec.models.causal_lm import CausalLM

IGNORED_TENSORS = ("*.rotary_emb.inv_freq",)
"""Tensors that old checkpoints carry and that follow from the config."""


@dataclass(frozen=True)
class Config(DenseConfig):
    """The fields of ``config.json`` that shape the model."""

    qkv_bias: bool
    parallel: bool

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> Config:
        """Read a Hugging Face config.

        Raises:
            CheckpointError: a field is missing or impossible.
            UnsupportedModelError: a feature this family has no code for.
        """
        read = ConfigReader(config)
        read.only("hidden_act", ("silu",), default="silu")
        # Norms of single heads, each with weights of its own, as StableLM 2 12B has them.
        read.only("qk_layernorm", (False,), default=False)
        fields = dense_fields(config, eps="layer_norm_eps", default_eps=1e-5, default_rotary=0.25)
        return cls(
            **fields,
            qkv_bias=read.flag("use_qkv_bias"),
            parallel=read.flag("use_parallel_residual"),
        )


def build(config: Config, dtype: str) -> CausalLM:
    """The model with plain weights, hidden states in ``dtype``."""
    hidden, eps = config.hidden_size, config.norm_eps

    def layer(index: int) -> DecoderLayer | ParallelLayer:
        attention = dense_attention(config, index, dtype, qkv_bias=config.qkv_bias)
        mlp = GatedMLP(hidden, config.intermediate_size, bias=False, dtype=dtype)
        if not config.parallel:
            return DecoderLayer(attention, mlp, hidden, eps, norm=LayerNorm, dtype=dtype)
        return ParallelLayer(attention, mlp, hidden, eps, norm=LayerNorm, shared=True, dtype=dtype)

    return dense_model(config, layer, dtype, norm=LayerNorm)
