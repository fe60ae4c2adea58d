"""Qwen3: Llama with an RMS norm of every query and key head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.models.blocks import DecoderLayer, GatedMLP
from edgec.models.dense import DenseConfig, dense_attention, dense_fields, dense_model
from edgec.models.hf_config import ConfigReader

if TYPE_CHECKING:
    from edgec.models.causal_lm import CausalLM

IGNORED_TENSORS = ()
_HEAD_DIM = 128


@dataclass(frozen=True)
class Config(DenseConfig):
    """The fields of ``config.json`` that shape the model."""

    attention_bias: bool

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> Config:
        """Read a Hugging Face config.

        Raises:
            CheckpointError: a field is missing or impossible.
            UnsupportedModelError: a feature this family has no code for.
        """
        read = ConfigReader(config)
        read.only("hidden_act", ("silu",), default="silu")
        # A head's size has nothing to do with the hidden states' here.
        fields = dense_fields({**config, "head_dim": read.positive("head_dim", default=_HEAD_DIM)})
        return cls(**fields, attention_bias=read.flag("attention_bias"))


def build(config: Config, dtype: str) -> CausalLM:
    """The model with plain weights, hidden states in ``dtype``."""
    hidden = config.hidden_size

    def layer(index: int) -> DecoderLayer:
        attention = dense_attention(
            config,
            index,
            dtype,
            qkv_bias=config.attention_bias,
            out_bias=config.attention_bias,
            head_norm_eps=config.norm_eps,
        )
        mlp = GatedMLP(hidden, config.intermediate_size, bias=False, dtype=dtype)
        return DecoderLayer(attention, mlp, hidden, config.norm_eps, dtype=dtype)

    return dense_model(config, layer, dtype)
