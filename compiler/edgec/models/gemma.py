"""Gemma: a Llama with a scaled embedding, wide heads, GELU, and norms that multiply by 1 + weight.

https://arxiv.org/abs/2403.08295
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.models.blocks import DecoderLayer, GatedMLP, OffsetRMSNorm
from edgec.models.dense import DenseConfig, dense_attention, dense_fields, dense_model
from edgec.models.hf_config import ConfigReader
from edgec.models.scaled import ScaledCausalLM

if TYPE_CHECKING:
    from edgec.models.causal_lm import CausalLM

IGNORED_TENSORS = ("*.rotary_emb.inv_freq",)
"""Tensors that old checkpoints carry and that follow from the config."""

_ACTIVATION = "gelu_pytorch_tanh"


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
        # The first configs said "gelu" and meant the form with the hyperbolic tangent, which
        # ``hidden_activation`` says; transformers computes that in either case.
        read.only("hidden_act", ("gelu", _ACTIVATION), default=_ACTIVATION)
        read.only("hidden_activation", (_ACTIVATION,), default=_ACTIVATION)
        read.only("use_bidirectional_attention", (False,), default=False)
        fields = dense_fields({"head_dim": 256, **config}, tied=True)
        return cls(**fields, attention_bias=read.flag("attention_bias"))


def build(config: Config, dtype: str) -> CausalLM:
    """The model with plain weights, hidden states in ``dtype``."""
    hidden = config.hidden_size

    def layer(index: int) -> DecoderLayer:
        attention = dense_attention(
            config, index, dtype, qkv_bias=config.attention_bias, out_bias=config.attention_bias
        )
        mlp = GatedMLP(
            hidden, config.intermediate_size, bias=False, activation=_ACTIVATION, dtype=dtype
        )
        return DecoderLayer(
            attention, mlp, hidden, config.norm_eps, norm=OffsetRMSNorm, dtype=dtype
        )

    return dense_model(
        config,
        layer,
        dtype,
        norm=OffsetRMSNorm,
        kind=ScaledCausalLM,
        embed_scale=math.sqrt(hidden),
    )
