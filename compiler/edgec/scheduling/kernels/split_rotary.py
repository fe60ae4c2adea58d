"""Rotate queries and keys where each pair of features turns by a factor slower: YaRN and LongRoPE.

TVM 0.27 has rotations for both. Its YaRN (https://arxiv.org/abs/2309.00071) takes the number of a
feature for that of its pair, so that the two features of a pair turn by different angles, and leaves
out the factor of sines and cosines. Its kernel for LongRoPE (https://arxiv.org/abs/2402.13753) can't
be built. That would take the long factors where one call has more tokens than the original length,
which says nothing of the sequence: a long prompt that comes in chunks would turn by the short ones.
Here one set of factors holds for all calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import tirx
from tvm.script import tirx as T

if TYPE_CHECKING:
    from edgec.models.rope import Rope


def split_rotary(heads: int, kv_heads: int, head_dim: int, rope: Rope, dtype: str) -> Any:
    """The PrimFunc ``(qkv, positions, q, k, v, factors)``, without a schedule.

    Args:
        heads: query heads.
        kv_heads: key-value heads.
        head_dim: size of one head.
        rope: of a type with factors.
        dtype: of queries, keys and values.

    Returns:
        ``qkv`` is ``(tokens, heads + 2 * kv_heads, head_dim)``, ``positions`` int32 ``(tokens,)``;
        ``q``, ``k`` and ``v`` are ``(tokens, heads or kv_heads, head_dim)``; ``factors`` is float32
        ``(rotary_dim,)``, whose first half is read.
    """
    rotary_dim, half = rope.rotary_dim, rope.rotary_dim // 2
    amplitude = rope.amplitude
    all_heads = heads + 2 * kv_heads

    def rotated(qkv: Any, s: Any, h: Any, d: Any, position: Any, factors: Any) -> Any:
        pair = d % half
        exponent = pair.astype("float32") * tirx.const(2.0 / rotary_dim, "float32")
        turns = tirx.power(tirx.const(rope.theta, "float32"), exponent) * factors[pair]
        angle = tirx.Var("angle", "float32")
        own = qkv[s, h, d].astype("float32")
        other = tirx.if_then_else(d < half, -qkv[s, h, d + half], qkv[s, h, d - half]).astype(
            "float32"
        )
        value = (own * tirx.cos(angle) + other * tirx.sin(angle)) * tirx.const(amplitude, "float32")
        return tirx.Let(angle, position.astype("float32") / turns, value.astype(dtype))

    @T.prim_func(private=True, s_tir=True)
    def rotate(
        qkv_handle: T.handle,
        positions_handle: T.handle,
        q_handle: T.handle,
        k_handle: T.handle,
        v_handle: T.handle,
        factors_handle: T.handle,
    ):
        # Opaque to fusion, as the cache calls it by itself.
        T.func_attr({"op_pattern": 8, "tirx.noalias": True})
        tokens = T.int64()
        positions_offset = T.int64()
        qkv = T.match_buffer(qkv_handle, (tokens, all_heads, head_dim), dtype)
        q = T.match_buffer(q_handle, (tokens, heads, head_dim), dtype)
        k = T.match_buffer(k_handle, (tokens, kv_heads, head_dim), dtype)
        v = T.match_buffer(v_handle, (tokens, kv_heads, head_dim), dtype)
        positions = T.match_buffer(
            positions_handle, (tokens,), "int32", elem_offset=positions_offset
        )
        factors = T.match_buffer(factors_handle, (rotary_dim,), "float32")
        for token, head, feature in T.grid(tokens, all_heads, head_dim):
            with T.sblock("rotate"):
                s, h, d = T.axis.remap("SSS", [token, head, feature])
                if h < heads:
                    q[s, h, d] = T.if_then_else(
                        d < rotary_dim,
                        rotated(qkv, s, h, d, positions[s], factors),
                        qkv[s, h, d],
                    )
                elif h < heads + kv_heads:
                    k[s, h - heads, d] = T.if_then_else(
                        d < rotary_dim,
                        rotated(qkv, s, h, d, positions[s], factors),
                        qkv[s, h, d],
                    )
                else:
                    v[s, h - (heads + kv_heads), d] = qkv[s, h, d]

    return rotate
