"""Qwen2 and Qwen2.5: Llama with biases on the query, key and value projections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.models.blocks import DecoderLayer, GatedMLP
from edgec.models.dense import PlainConfig, dense_attention, dense_model

if TYPE_CHECKING:
    from edgec.models.causal_lm import CausalLM

IGNORED_TENSORS = ("*.rotary_emb.inv_freq",)
"""Tensors that old checkpoints carry and that follow from the config."""

Config = PlainConfig


def build(config: Config, dtype: str) -> CausalLM:
    """The model with plain weights, hidden states in ``dtype``."""
    hidden = config.hidden_size

    def layer(index: int) -> DecoderLayer:
        attention = dense_attention(config, index, dtype, qkv_bias=True)
        mlp = GatedMLP(hidden, config.intermediate_size, bias=False, dtype=dtype)
        return DecoderLayer(attention, mlp, hidden, config.norm_eps, dtype=dtype)

    return dense_model(config, layer, dtype)
