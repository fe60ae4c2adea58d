"""Llama 2, 3 and 3.2, and the many models of the same architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.models.blocks import DecoderLayer, GatedMLP
from edgec.models.dense import DenseConfig, dense_attention, dense_fields, dense_model
from edgec.models.hf_config import ConfigReader

if TYPE_CHECKING:
    from edgec.models.causal_lm import CausalLM

IGNORED_TENSORS = ("*.rotary_emb.inv_freq",)
"""Tensors that old checkpoints carry and that follow from the config."""


@dataclass(frozen=True)
class Config(DenseConfig):
    """The fields of ``config.json`` that shape the model."""

    attention_bias: bool
    mlp_bias: bool

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> Config:
        """Read a Hugging Face config.

        Raises:
            CheckpointError: a field is missing or impossible.
            UnsupportedModelError: a feature this family has no code for.
        """
        read = ConfigReader(config)
        read.only("hidden_act", ("silu", "swish"), default="silu")
        return cls(
            **dense_fields(config),
            attention_bias=read.flag("attention_bias"),
            mlp_bias=read.flag("mlp_bias"),
        )


def build(config: Config, dtype: str) -> CausalLM:
    """The model with plain weights, hidden states in ``dtype``."""
    hidden = config.hidden_size

    def layer(index: int) -> DecoderLayer:
        attention = dense_attention(
            config, index, dtype, qkv_bias=config.attention_bias, out_bias=config.attention_bias
        )
        mlp = GatedMLP(hidden, config.intermediate_size, bias=config.mlp_bias, dtype=dtype)
        return DecoderLayer(attention, mlp, hidden, config.norm_eps, dtype=dtype)

    return dense_model(config, layer, dtype)
