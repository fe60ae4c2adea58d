"""Gemma 3 without images: norms of queries and keys, and two rotary embeddings.

Five local layers come before each global one and turn by angles of their own.
https://arxiv.org/abs/2503.19786
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvm.relax.frontend.nn import Tensor, op

from edgec.errors import CheckpointError, UnsupportedModelError
from edgec.models.blocks import Decoder, GatedMLP, OffsetRMSNorm, SandwichLayer
from edgec.models.dense import DenseConfig, dense_attention, dense_fields, dense_model
from edgec.models.hf_config import ConfigReader
from edgec.models.layer_kinds import local_layers
from edgec.models.rope import LINEAR, LLAMA3
from edgec.models.rope_config import rope_from_config
from edgec.models.rotation import RotatingCache, turns
from edgec.models.scaled import ScaledCausalLM

if TYPE_CHECKING:
    from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache

    from edgec.models.causal_lm import CausalLM
    from edgec.models.rope import Rope

IGNORED_TENSORS = ("*.rotary_emb.inv_freq",)
"""Tensors that old checkpoints carry and that follow from the config."""

_ACTIVATION = "gelu_pytorch_tanh"
# What transformers takes where a config says nothing.
_HEAD_DIM, _QUERY_SCALAR, _WINDOW, _PERIOD = 256, 256.0, 4096, 6
_GLOBAL_THETA, _LOCAL_THETA = 1e6, 1e4
_PARAMETERS = "rope_parameters"
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"
# Which neither depend on the context nor have an amplitude.
_ROPES = ("default", LINEAR, LLAMA3)


@dataclass(frozen=True)
class Config(DenseConfig):
    """The fields of ``config.json`` that shape the model; ``rope`` is that of global layers.

    Attributes:
        attention_bias: whether the attention's projections have biases.
        scale: of scores.
        logit_cap: the soft cap of logits; None: none.
        window: tokens that a token sees in local layers.
        local: whether each layer is local.
        local_rope: rotary embedding of local layers.
    """

    attention_bias: bool
    scale: float
    logit_cap: float | None
    window: int
    local: tuple[bool, ...]
    local_rope: Rope

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
        # A cap of scores is a field that transformers reads and doesn't use.
        read.only("attn_logit_softcapping", ("null",), default="null")
        head_dim = read.positive("head_dim", default=_HEAD_DIM)
        ropes = _ropes(config, head_dim)
        plain = {k: v for k, v in config.items() if k not in {_PARAMETERS, "rope_scaling"}}
        fields = dense_fields({**plain, "head_dim": head_dim}, tied=True)
        return cls(
            **{**fields, "rope": ropes[_GLOBAL]},
            attention_bias=read.flag("attention_bias"),
            scale=read.number("query_pre_attn_scalar", default=_QUERY_SCALAR) ** -0.5,
            logit_cap=read.cap("final_logit_softcapping", default=None),
            window=read.positive("sliding_window", default=_WINDOW),
            local=local_layers(config, _PERIOD),
            local_rope=ropes[_LOCAL],
        )


class RotatingDecoder(Decoder):
    """A decoder whose local and global layers turn by angles of their own."""

    shape: Config

    def forward(self, x: Tensor, cache: PagedKVCache) -> Tensor:
        """Hidden states ``(batch, seq, hidden)`` before the head."""
        batch, seq, _ = x.shape
        positions = op.reshape(cache.get_query_positions(batch * seq), (1, batch * seq))
        local, whole = (
            turns(positions, rope.inverse_frequencies(), [0] * (rope.rotary_dim // 2), name)
            for rope, name in ((self.shape.local_rope, "local_rope"), (self.shape.rope, "rope"))
        )
        rotating = RotatingCache(
            cache,
            self.shape.num_key_value_heads,
            lambda layer: local if self.shape.local[layer] else whole,
            "rotate",
        )
        return super().forward(x, rotating)


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
            head_norm_eps=config.norm_eps,
            head_norm=OffsetRMSNorm,
            scale=config.scale,
            local=config.local[index],
        )
        mlp = GatedMLP(
            hidden, config.intermediate_size, bias=False, activation=_ACTIVATION, dtype=dtype
        )
        return SandwichLayer(
            attention, mlp, hidden, config.norm_eps, norm=OffsetRMSNorm, dtype=dtype
        )

    model = dense_model(
        config,
        layer,
        dtype,
        norm=OffsetRMSNorm,
        kind=ScaledCausalLM,
        stack=RotatingDecoder,
        cache={
            "local_window": config.window if any(config.local) else None,
            "rotates": False,
        },
        embed_scale=math.sqrt(hidden),
        logit_cap=config.logit_cap,
    )
    model.model.shape = config
    return model


def _ropes(config: dict[str, Any], head_dim: int) -> dict[str, Rope]:
    """The rotary embeddings of global and of local layers.

    ``rope_parameters`` has one object for each kind (transformers 5); before, ``rope_theta`` and
    ``rope_scaling`` were of global layers, ``rope_local_base_freq`` of local ones.
    """
    given = config.get(_PARAMETERS) or {}
    if not isinstance(given, dict):
        raise CheckpointError(
            f"{given!r} is not an object",
            where=f"config.json: {_PARAMETERS}",
            remedy="take config.json from the model's original repository",
        )
    before = {
        _GLOBAL: (config.get("rope_theta"), _GLOBAL_THETA, config.get("rope_scaling")),
        _LOCAL: (config.get("rope_local_base_freq"), _LOCAL_THETA, None),
    }
    ropes = {}
    for kind, (theta, default, scaling) in before.items():
        own = given.get(kind) or {}
        if not isinstance(own, dict):
            raise CheckpointError(
                f"{own!r} is not an object",
                where=f"config.json: {_PARAMETERS}.{kind}",
                remedy="take config.json from the model's original repository",
            )
        fields = {"rope_theta": default if theta is None else theta, **(scaling or {}), **own}
        ropes[kind] = _rope(fields, head_dim, kind)
    return ropes


def _rope(fields: dict[str, Any], head_dim: int, kind: str) -> Rope:
    rope = rope_from_config({_PARAMETERS: fields}, head_dim)
    if rope.kind not in _ROPES:
        raise UnsupportedModelError(
            f"RoPE type {rope.kind!r} is not supported in layers of several kinds",
            where=f"config.json: {_PARAMETERS}.{kind}",
            remedy=f"supported are {', '.join(_ROPES)}",
        )
    return rope
