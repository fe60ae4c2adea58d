"""Phi-3, Phi-3.5 and Phi-4-mini: fused projections in the checkpoint, LongRoPE.

What LongRoPE makes of a library's context length stands at ``Rope.at_length``.
"""

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

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> Config:
        """Read a Hugging Face config.

        Raises:
            CheckpointError: a field is missing or impossible.
            UnsupportedModelError: a feature this family has no code for.
        """
        ConfigReader(config).only("hidden_act", ("silu",), default="silu")
        return cls(**dense_fields(config, default_eps=1e-5))


def build(config: Config, dtype: str) -> CausalLM:
    """The model with plain weights, hidden states in ``dtype``."""
    hidden = config.hidden_size

    def layer(index: int) -> DecoderLayer:
        attention = dense_attention(config, index, dtype, stored="fused")
        mlp = GatedMLP(hidden, config.intermediate_size, bias=False, fused=True, dtype=dtype)
        return DecoderLayer(attention, mlp, hidden, config.norm_eps, dtype=dtype)

    return dense_model(config, layer, dtype)
