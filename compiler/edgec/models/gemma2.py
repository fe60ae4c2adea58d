"""Gemma 2: Gemma with four norms in a layer, soft caps, and local layers between global ones.

https://arxiv.org/abs/2408.00118
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.models.blocks import GatedMLP, OffsetRMSNorm, SandwichLayer
from edgec.models.dense import DenseConfig, dense_attention, dense_fields, dense_model
from edgec.models.hf_config import ConfigReader
from edgec.models.layer_kinds import local_layers
from edgec.models.scaled import ScaledCausalLM

if TYPE_CHECKING:
    from edgec.models.causal_lm import CausalLM

IGNORED_TENSORS = ("*.rotary_emb.inv_freq",)
"""Tensors that old checkpoints carry and that follow from the config."""

_ACTIVATION = "gelu_pytorch_tanh"
# What transformers takes where a config says nothing.
_HEAD_DIM, _QUERY_SCALAR, _WINDOW, _PERIOD = 256, 256.0, 4096, 2
_SCORE_CAP, _LOGIT_CAP = 50.0, 30.0


@dataclass(frozen=True)
class Config(DenseConfig):
    """The fields of ``config.json`` that shape the model.

    Attributes:
        attention_bias: whether the attention's projections have biases.
        scale: of scores.
        score_cap: their soft cap; None: none.
        logit_cap: the soft cap of logits; None: none.
        window: tokens that a token sees in local layers.
        local: whether each layer is local.
    """

    attention_bias: bool
    scale: float
    score_cap: float | None
    logit_cap: float | None
    window: int
    local: tuple[bool, ...]

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> Config:
        """Read a Hugging Face config.

        Raises:
            CheckpointError: a field is missing or impossible.
            UnsupportedModelError: a feature this family has no code for.
        """
        read = ConfigReader(config)
        read.only("hidden_activation", (_ACTIVATION,), default=_ACTIVATION)
        read.only("use_bidirectional_attention", (False,), default=False)
        return cls(
            **dense_fields({"head_dim": _HEAD_DIM, **config}, tied=True),
            attention_bias=read.flag("attention_bias"),
            scale=read.number("query_pre_attn_scalar", default=_QUERY_SCALAR) ** -0.5,
            score_cap=read.cap("attn_logit_softcapping", default=_SCORE_CAP),
            logit_cap=read.cap("final_logit_softcapping", default=_LOGIT_CAP),
            window=read.positive("sliding_window", default=_WINDOW),
            local=local_layers(config, _PERIOD),
        )


def build(config: Config, dtype: str) -> CausalLM:
    """The model with plain weights, hidden states in ``dtype``."""
    hidden = config.hidden_size

    def layer(index: int) -> SandwichLayer:
        attention = dense_attention(
            config,
            index,
            dtype,
            qkv_bias=config.attention_bias,
            out_bias=config.attention_bias,
            scale=config.scale,
            local=config.local[index],
        )
        mlp = GatedMLP(
            hidden, config.intermediate_size, bias=False, activation=_ACTIVATION, dtype=dtype
        )
        return SandwichLayer(
            attention, mlp, hidden, config.norm_eps, norm=OffsetRMSNorm, dtype=dtype
        )

    return dense_model(
        config,
        layer,
        dtype,
        norm=OffsetRMSNorm,
        kind=ScaledCausalLM,
        cache={
            "soft_cap": config.score_cap,
            "local_window": config.window if any(config.local) else None,
        },
        embed_scale=math.sqrt(hidden),
        logit_cap=config.logit_cap,
    )
