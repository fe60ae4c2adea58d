"""Llama 2, 3 and 3.2, and the many models of the same architecture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgec.models.blocks import (
    Attention,
    Decoder,
    DecoderLayer,
    Embedding,
    GatedMLP,
    Linear,
    RMSNorm,
)
from edgec.models.causal_lm import CausalLM
from edgec.models.hf_config import ConfigReader
from edgec.models.kv_cache import KVCacheSpec
from edgec.models.rope import Rope, rope_from_config

IGNORED_TENSORS = ("*.rotary_emb.inv_freq",)
"""Tensors that old checkpoints carry and that follow from the config."""


@dataclass(frozen=True)
class Config:
    """The fields of ``config.json`` that shape the model."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    tie_word_embeddings: bool
    attention_bias: bool
    mlp_bias: bool
    rope: Rope

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> Config:
        """Read a Hugging Face config.

        Raises:
            CheckpointError: a field is missing or impossible.
            UnsupportedModelError: a feature this family has no code for.
        """
        read = ConfigReader(config)
        heads = read.positive("num_attention_heads")
        hidden = read.positive("hidden_size")
        head_dim = read.positive("head_dim", default=hidden // heads)
        kv_heads = read.positive("num_key_value_heads", default=heads)
        read.require(
            heads % kv_heads == 0,
            "num_key_value_heads",
            f"{kv_heads} doesn't divide num_attention_heads {heads}",
        )
        read.only("hidden_act", ("silu", "swish"), default="silu")
        return cls(
            vocab_size=read.positive("vocab_size"),
            hidden_size=hidden,
            intermediate_size=read.positive("intermediate_size"),
            num_hidden_layers=read.positive("num_hidden_layers"),
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            rms_norm_eps=read.number("rms_norm_eps", default=1e-6),
            max_position_embeddings=read.positive("max_position_embeddings", default=2048),
            tie_word_embeddings=read.flag("tie_word_embeddings"),
            attention_bias=read.flag("attention_bias"),
            mlp_bias=read.flag("mlp_bias"),
            rope=rope_from_config(config, head_dim),
        )


def build(config: Config, dtype: str) -> CausalLM:
    """The model with plain weights, hidden states in ``dtype``."""

    def layer(index: int) -> DecoderLayer:
        attention = Attention(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            layer=index,
            qkv_bias=config.attention_bias,
            out_bias=config.attention_bias,
            dtype=dtype,
        )
        mlp = GatedMLP(
            config.hidden_size, config.intermediate_size, bias=config.mlp_bias, dtype=dtype
        )
        return DecoderLayer(attention, mlp, config.hidden_size, config.rms_norm_eps, dtype=dtype)

    model = Decoder(
        Embedding(config.vocab_size, config.hidden_size, dtype=dtype),
        [layer(index) for index in range(config.num_hidden_layers)],
        RMSNorm(config.hidden_size, config.rms_norm_eps, dtype=dtype),
    )
    head = (
        None
        if config.tie_word_embeddings
        else Linear(config.hidden_size, config.vocab_size, role="head", dtype=dtype)
    )
    cache = KVCacheSpec(
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        rope=config.rope,
        dtype=dtype,
    )
    return CausalLM(
        model,
        head,
        cache,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        dtype=dtype,
    )
