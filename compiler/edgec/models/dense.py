"""What the configs of dense decoders share, and the model around their layers."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from edgec.models.blocks import Attention, Decoder, Embedding, Linear, Norm, RMSNorm
from edgec.models.causal_lm import CausalLM
from edgec.models.hf_config import ConfigReader
from edgec.models.kv_cache import KVCacheSpec
from edgec.models.rope_config import rope_from_config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tvm.relax.frontend import nn
    from typing_extensions import Self

    from edgec.models.rope import Rope


@dataclass(frozen=True)
class DenseConfig:
    """The fields of ``config.json`` that shape any decoder without experts.

    Attributes:
        vocab_size: entries of the logits.
        hidden_size: of the hidden states.
        intermediate_size: of the MLP.
        num_hidden_layers: decoder layers.
        num_attention_heads: query heads.
        num_key_value_heads: key-value heads.
        head_dim: size of one head.
        norm_eps: epsilon of the norms.
        tie_word_embeddings: whether the head is the embedding transposed.
        rope: rotary embedding of queries and keys.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    norm_eps: float
    tie_word_embeddings: bool
    rope: Rope


@dataclass(frozen=True)
class PlainConfig(DenseConfig):
    """Of families whose config says nothing else: MLPs with a SiLU gate."""

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> Self:
        """Read a Hugging Face config.

        Raises:
            CheckpointError: a field is missing or impossible.
            UnsupportedModelError: a feature these families have no code for.
        """
        ConfigReader(config).only("hidden_act", ("silu",), default="silu")
        return cls(**dense_fields(config))


def dense_fields(
    config: Mapping[str, Any],
    *,
    eps: str = "rms_norm_eps",
    default_eps: float = 1e-6,
    default_rotary: float = 1.0,
    tied: bool = False,
) -> dict[str, Any]:
    """Read the fields of :class:`DenseConfig`.

    Args:
        config: a model's ``config.json``.
        eps: the field of the norms' epsilon.
        default_eps: what it is where the field is missing.
        default_rotary: the part of a head that is rotated where the config doesn't say.
        tied: whether the embedding is the head where the config doesn't say.

    Returns:
        By the names of the attributes.

    Raises:
        CheckpointError: a field is missing or impossible.
        UnsupportedModelError: a rotary embedding that there is no code for.
    """
    read = ConfigReader(config)
    heads = read.positive("num_attention_heads")
    hidden = read.positive("hidden_size")
    if config.get("head_dim") is None:
        read.require(
            hidden % heads == 0,
            "num_attention_heads",
            f"{heads} doesn't divide hidden_size {hidden}",
        )
    head_dim = read.positive("head_dim", default=hidden // heads)
    kv_heads = read.positive("num_key_value_heads", default=heads)
    read.require(
        heads % kv_heads == 0,
        "num_key_value_heads",
        f"{kv_heads} doesn't divide num_attention_heads {heads}",
    )
    return {
        "vocab_size": read.positive("vocab_size"),
        "hidden_size": hidden,
        "intermediate_size": read.positive("intermediate_size"),
        "num_hidden_layers": read.positive("num_hidden_layers"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "norm_eps": read.number(eps, default=default_eps),
        "tie_word_embeddings": read.flag("tie_word_embeddings", default=tied),
        "rope": rope_from_config(config, head_dim, default_rotary),
    }


def dense_attention(
    config: DenseConfig,
    index: int,
    dtype: str,
    *,
    qkv_bias: bool = False,
    out_bias: bool = False,
    **options: Any,
) -> Attention:
    """The attention of a layer.

    Args:
        config: the model's shape.
        index: the layer's number.
        dtype: of hidden states.
        qkv_bias: whether the query, key and value projections have biases.
        out_bias: whether the output projection has one.
        options: what else :class:`Attention` takes.
    """
    return Attention(
        config.hidden_size,
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
        layer=index,
        qkv_bias=qkv_bias,
        out_bias=out_bias,
        dtype=dtype,
        **options,
    )


def dense_model(
    config: DenseConfig,
    layer: Callable[[int], nn.Module],
    dtype: str,
    *,
    norm: Norm = RMSNorm,
    head_bias: bool = False,
    names: Mapping[str, str] = MappingProxyType({}),
    kind: type[CausalLM] = CausalLM,
    stack: type[Decoder] = Decoder,
    **options: Any,
) -> CausalLM:
    """Embedding, layers, final norm and head.

    Args:
        config: the model's shape.
        layer: makes the layer of a number.
        dtype: of hidden states.
        norm: what kind the final norm is.
        head_bias: whether the head has a bias, if it isn't the embedding.
        names: see :class:`CausalLM`.
        kind: the class of the result.
        stack: the class of its decoder.
        options: what else that class takes.

    Returns:
        The model with plain weights.
    """
    hidden, vocab_size = config.hidden_size, config.vocab_size
    decoder = stack(
        Embedding(vocab_size, hidden, dtype=dtype),
        [layer(index) for index in range(config.num_hidden_layers)],
        norm(hidden, config.norm_eps, dtype=dtype),
    )
    head = (
        None
        if config.tie_word_embeddings
        else Linear(hidden, vocab_size, bias=head_bias, role="head", dtype=dtype)
    )
    cache = KVCacheSpec(
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        rope=config.rope,
        dtype=dtype,
    )
    return kind(
        decoder,
        head,
        cache,
        vocab_size=vocab_size,
        hidden_size=hidden,
        dtype=dtype,
        names=names,
        **options,
    )
