"""Rotary position embedding in the model, for layers whose embeddings differ.

TVM's cache rotates the queries and keys of all layers alike. A model that does it by itself makes its
cache with ``rotates=False``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tvm.relax.frontend.nn import Tensor, op

if TYPE_CHECKING:
    from edgec.models.rope import Rope


def rotated(qkv: Tensor, positions: Tensor, kv_heads: int, rope: Rope) -> Tensor:
    """Queries and keys rotated by the positions of their tokens, beside values as they were.

    Args:
        qkv: ``(batch, seq, heads + 2 * kv_heads, head_dim)``, query heads first, values last.
        positions: int32 ``(batch * seq,)``.
        kv_heads: key-value heads.
        rope: the embedding, whose sines and cosines are those of the angles alone.

    Returns:
        As ``qkv``.
    """
    from tvm import te, tirx  # noqa: PLC0415 - only when a model is built

    half, dtype = rope.rotary_dim // 2, qkv.dtype
    frequencies = Tensor.from_const(np.array(rope.inverse_frequencies(), "float32"))

    def compute(x: Any, places: Any, turns: Any) -> Any:
        _, seq, all_heads, _ = x.shape

        def value(b: Any, s: Any, h: Any, d: Any) -> Any:
            angle = places[b * seq + s].astype("float32") * turns[d % half]
            # The same sum for both halves of a pair, with another sign.
            partner = tirx.if_then_else(d < half, -x[b, s, h, d + half], x[b, s, h, d - half])
            own, other = (item.astype("float32") for item in (x[b, s, h, d], partner))
            turned = (own * tirx.cos(angle) + other * tirx.sin(angle)).astype(dtype)
            wanted = tirx.all(h < all_heads - kv_heads, d < rope.rotary_dim)
            return tirx.if_then_else(wanted, turned, x[b, s, h, d])

        return te.compute(x.shape, value, name="rotated")

    return op.tensor_expr_op(compute, "rotate", [qkv, positions, frequencies])
