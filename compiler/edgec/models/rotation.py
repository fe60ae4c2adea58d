"""Rotary position embedding in the model, for those whose tokens or layers don't all turn alike.

TVM's cache rotates the queries and keys of all layers by one embedding and by the number of a token
in its sequence. A model that does it by itself makes its cache with ``rotates=False`` and hands its
layers a :class:`RotatingCache`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tvm import te, tirx
from tvm.relax.frontend.nn import Tensor, op

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache


class Turns(NamedTuple):
    """By how much each pair of a token's heads turns; both float32 ``(tokens, pairs)``."""

    cosines: Tensor
    sines: Tensor


def turns(positions: Tensor, frequencies: Sequence[float], axes: Sequence[int], name: str) -> Turns:
    """Sines and cosines of the angles of tokens, once for all layers that turn so.

    Args:
        positions: int32 ``(axes, tokens)``: a token may have several.
        frequencies: radians by which a position turns each pair.
        axes: which of a token's positions turns each pair.
        name: of the kernels.
    """
    numbers = Tensor.from_const(np.array(frequencies, "float32"))
    chosen = Tensor.from_const(np.array(axes, "int32"))

    def table(function: Callable[[Any], Any], which: str) -> Tensor:
        def compute(position: Any, frequency: Any, axis: Any) -> Any:
            return te.compute(
                (position.shape[1], frequency.shape[0]),
                lambda token, pair: function(
                    position[axis[pair], token].astype("float32") * frequency[pair]
                ),
                name=f"{name}_{which}",
            )

        return op.tensor_expr_op(compute, f"{name}_{which}", [positions, numbers, chosen])

    return Turns(table(tirx.cos, "cos"), table(tirx.sin, "sin"))


def rotate(heads: Tensor, by: Turns, turned: int, name: str) -> Tensor:
    """Rotate the first ``turned`` heads, a pair being two dimensions half of the rotated ones apart.

    Args:
        heads: ``(batch, seq, heads, head_dim)``.
        by: the turns of ``batch * seq`` tokens. Dimensions beyond their pairs stay as they are.
        turned: heads to rotate; those behind stay as they are.
        name: of the kernel.

    Returns:
        As ``heads``.
    """

    def compute(states: Any, cosine: Any, sine: Any) -> Any:
        _, sequence, count, head_dim = states.shape
        half = int(cosine.shape[1])

        def value(batch: Any, s: Any, h: Any, d: Any) -> Any:
            token, pair = batch * sequence + s, d % half
            own = states[batch, s, h, d].astype("float32")
            # Indices stay inside where the other choice is taken.
            other = tirx.if_then_else(
                d < half,
                -states[batch, s, h, tirx.min(d + half, head_dim - 1)].astype("float32"),
                states[batch, s, h, tirx.max(d - half, 0)].astype("float32"),
            )
            result = own * cosine[token, pair] + other * sine[token, pair]
            kept = [] if int(count) == turned else [h < turned]
            kept += [] if int(head_dim) == 2 * half else [d < 2 * half]
            if kept:
                result = tirx.if_then_else(tirx.all(*kept), result, own)
            return result.astype(states.dtype)

        return te.compute(states.shape, value, name=name)

    return op.tensor_expr_op(compute, name, [heads, by.cosines, by.sines])


class RotatingCache:
    """A KV cache whose queries and keys are rotated before they get there.

    Args:
        cache: without rotation of its own.
        kv_heads: its key-value heads.
        by_layer: how the tokens of this call turn in a layer.
        name: of the kernels.
    """

    def __init__(
        self, cache: PagedKVCache, kv_heads: int, by_layer: Callable[[int], Turns], name: str
    ) -> None:
        self._cache = cache
        self._kv_heads = kv_heads
        self._by_layer = by_layer
        self._name = name

    def attention_with_fused_qkv(
        self, layer_id: int, qkv: Tensor, num_qo_heads: int, sm_scale: float
    ) -> Tensor:
        """``(batch, seq, heads + 2 * kv_heads, head_dim)`` to ``(batch, seq, heads, head_dim)``."""
        turned = rotate(qkv, self._by_layer(layer_id), num_qo_heads + self._kv_heads, self._name)
        return self._cache.attention_with_fused_qkv(layer_id, turned, num_qo_heads, sm_scale)
