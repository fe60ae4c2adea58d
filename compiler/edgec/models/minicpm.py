"""MiniCPM and MiniCPM4's dense form: Llama with scales that make sizes comparable.

The scales are those of https://arxiv.org/abs/2404.06395, section 3.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.models.blocks import DecoderLayer, GatedMLP
from edgec.models.dense import DenseConfig, dense_attention, dense_fields, dense_model
from edgec.models.hf_config import ConfigReader
from edgec.models.scaled import ScaledCausalLM

if TYPE_CHECKING:
    from edgec.models.causal_lm import CausalLM

IGNORED_TENSORS = ("*.rotary_emb.inv_freq",)
"""Tensors that old checkpoints carry and that follow from the config."""


@dataclass(frozen=True)
class Config(DenseConfig):
    """The fields of ``config.json`` that shape the model.

    Attributes:
        attention_bias: whether the attention's projections have biases.
        embed_scale: of the embedding.
        branch_scale: of what attention and MLP add to the residual stream.
        head_scale: of the hidden states before the head.
    """

    attention_bias: bool
    embed_scale: float
    branch_scale: float
    head_scale: float

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> Config:
        """Read a config of the model's repository.

        Raises:
            CheckpointError: a field is missing or impossible.
            UnsupportedModelError: a feature this family has no code for.
        """
        read = ConfigReader(config)
        read.only("hidden_act", ("silu",), default="silu")
        # Experts and InfLLM's blocks of sparse attention.
        read.only("num_experts", (0,), default=0)
        read.only("sparse_config", ("none",), default="none")
        fields = dense_fields(config, tied=True)
        layers, hidden = fields["num_hidden_layers"], fields["hidden_size"]
        return cls(
            **fields,
            attention_bias=read.flag("attention_bias"),
            embed_scale=read.number("scale_emb", default=1.0),
            branch_scale=read.number("scale_depth", default=1.0) / math.sqrt(layers),
            head_scale=read.positive("dim_model_base", default=1) / hidden,
        )


def build(config: Config, dtype: str) -> CausalLM:
    """The model with plain weights, hidden states in ``dtype``."""
    hidden = config.hidden_size

    def layer(index: int) -> DecoderLayer:
        attention = dense_attention(
            config, index, dtype, qkv_bias=config.attention_bias, out_bias=config.attention_bias
        )
        mlp = GatedMLP(hidden, config.intermediate_size, bias=False, dtype=dtype)
        return DecoderLayer(
            attention,
            mlp,
            hidden,
            config.norm_eps,
            branch_scale=config.branch_scale,
            dtype=dtype,
        )

    return dense_model(
        config,
        layer,
        dtype,
        kind=ScaledCausalLM,
        embed_scale=config.embed_scale,
        head_scale=config.head_scale,
    )
