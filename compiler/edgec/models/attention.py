"""Self-attention over the paged KV cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from edgec.models.matrix import Linear, Piece
from edgec.models.norms import LayerNormOfHeads, Norm, RMSNorm

if TYPE_CHECKING:
    from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache


Stored = Literal["apart", "fused", "by_head"]
"""How a checkpoint holds the query, key and value projections.

``apart``: ``q_proj``, ``k_proj`` and ``v_proj``; ``fused``: their rows one after the other in
``qkv_proj``; ``by_head``: in ``qkv_proj``, with a head's query, key and value together.
"""
HeadNorm = Norm | type[LayerNormOfHeads]
"""A norm of heads: with one weight for all, or one for each."""


class Attention(nn.Module):  # type: ignore[misc]
    """Self-attention over the paged KV cache, which also applies RoPE.

    Query heads may share key-value heads (https://arxiv.org/abs/2305.13245).

    Args:
        hidden: size of the hidden states.
        heads: query heads.
        kv_heads: key-value heads.
        head_dim: size of one head.
        layer: its number among the model's layers.
        qkv_bias: whether the query, key and value projections have biases.
        out_bias: whether the output projection has one.
        stored: how the checkpoint holds the projections.
        head_norm_eps: epsilon of norms of every query and key head before RoPE; None: no norms.
        head_norm: what kind these are.
        scale: of scores; None: ``1 / sqrt(head_dim)``.
        local: whether a token sees no more keys than the window of the cache's spec.
        dtype: of hidden states.
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        layer: int,
        qkv_bias: bool,
        out_bias: bool,
        stored: Stored = "apart",
        head_norm_eps: float | None = None,
        head_norm: HeadNorm = RMSNorm,
        scale: float | None = None,
        local: bool = False,
        dtype: str,
    ) -> None:
        self.heads = heads
        self.kv_heads = kv_heads
        self.head_dim = head_dim
        self.layer = layer
        self.qkv_proj = Linear(
            hidden,
            (heads + 2 * kv_heads) * head_dim,
            pieces=_pieces(heads, kv_heads, head_dim, stored),
            bias=qkv_bias,
            dtype=dtype,
        )
        self.o_proj = Linear(heads * head_dim, hidden, bias=out_bias, dtype=dtype)
        self.q_norm, self.k_norm = (
            _head_norm(head_norm, count, head_dim, head_norm_eps, dtype)
            for count in (heads, kv_heads)
        )
        self.scale = head_dim**-0.5 if scale is None else scale
        self.local = local

    def forward(self, x: Tensor, cache: PagedKVCache) -> Tensor:
        """``(batch, seq, hidden)`` to the same shape; appends this step's keys and values."""
        batch, seq, _ = x.shape
        qkv = op.reshape(
            self.qkv_proj(x), (batch, seq, self.heads + 2 * self.kv_heads, self.head_dim)
        )
        if self.q_norm is not None and self.k_norm is not None:
            query, key, value = op.split(qkv, [self.heads, self.heads + self.kv_heads], axis=2)
            qkv = op.concat([self.q_norm(query), self.k_norm(key), value], dim=2)
        # Kernels get the scale as it is given here, and nothing else of a layer: a negative one tells
        # them that the layer is local.
        y = cache.attention_with_fused_qkv(
            self.layer, qkv, self.heads, sm_scale=-self.scale if self.local else self.scale
        )
        return self.o_proj(op.reshape(y, (batch, seq, self.heads * self.head_dim)))


def _head_norm(
    kind: HeadNorm, heads: int, head_dim: int, eps: float | None, dtype: str
) -> nn.Module | None:
    if eps is None:
        return None
    own: dict[str, Any] = {"heads": heads} if kind is LayerNormOfHeads else {}
    return kind(head_dim, eps, dtype=dtype, **own)


def _pieces(heads: int, kv_heads: int, head_dim: int, stored: Stored) -> tuple[Piece, ...]:
    if stored == "apart":
        return (
            Piece("q_proj", heads * head_dim),
            Piece("k_proj", kv_heads * head_dim),
            Piece("v_proj", kv_heads * head_dim),
        )
    if stored == "fused":
        return ()
    assert heads == kv_heads, "a head's query, key and value come together"
    return (Piece("qkv_proj", 3 * heads * head_dim, interleaved=(heads, 3)),)
