"""Multimodal rotary embedding (M-RoPE) over a KV cache that only counts tokens.

Qwen2-VL, https://arxiv.org/abs/2409.12191, section 2.1: a token has three positions, in time, height and
width, and each of them turns its own section of a head's pairs. Of text all three are the same. The
tokens of an image begin at the position that follows the text before it, and add their row and their
column in two of the three; the text behind goes on one after the largest, so that an image of
``side * side`` tokens takes ``side`` positions.

Engines hand over embeddings and nothing else, in chunks of any size, and the cache knows a token's
number in its sequence. So embeddings carry :data:`MARKERS` more columns, zeros for text; and how many
images lie before a token is read from the cache itself: one more layer of it holds a mark for the
last token of each image, and attention with queries of zero is the mean over all tokens up to one's
own. The mean times their number is the number of images, exactly: see ``docs/decisions/0020-vision.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import te, tirx
from tvm.relax.frontend.nn import Tensor, op

from edgec.models.rotation import RotatingCache, turns

if TYPE_CHECKING:
    from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache

    from edgec.models.kv_cache import KVCacheSpec

MARKERS = 4
"""Columns behind the hidden states of an embedding: a token's row and its column in an image, 1 for
the last token of an image, and a zero that keeps rows aligned to 8 bytes in float16."""

_ROW, _COLUMN, _LAST, _ = range(MARKERS)
# A mark this large keeps means in float16's normal range in contexts of up to a million tokens.
_MARK = 64.0


@dataclass(frozen=True)
class MRope:
    """The rotary embedding of one model.

    Attributes:
        sections: pairs of a head that turn by time, height and width, one after the other.
        frequencies: radians by which a position turns each pair.
        side: tokens along each side of an image.
    """

    sections: tuple[int, int, int]
    frequencies: tuple[float, ...]
    side: int

    @property
    def axes(self) -> tuple[int, ...]:
        """Which of the three positions turns each pair."""
        return tuple(axis for axis, pairs in enumerate(self.sections) for _ in range(pairs))


def image_markers(side: int, dtype: str) -> np.ndarray[Any, Any]:
    """The markers of the tokens of an image, in their order; ``(side * side, MARKERS)``."""
    tokens = side * side
    rows, columns = np.divmod(np.arange(tokens), side)
    last = np.arange(tokens) == tokens - 1
    return np.stack([rows, columns, last, np.zeros(tokens)], axis=1).astype(dtype)


def rotating_cache(
    cache: PagedKVCache, spec: KVCacheSpec, rope: MRope, embeddings: Tensor
) -> RotatingCache:
    """The cache as layers see it.

    Args:
        cache: without rotation of its own; its last layer counts images.
        spec: its shape.
        rope: how to rotate.
        embeddings: ``(batch, seq, hidden + MARKERS)``, of which the markers are read.
    """
    batch, sequence, _ = embeddings.shape
    numbers = cache.get_query_positions(batch * sequence)
    positions = _positions(numbers, embeddings, _images(cache, spec, embeddings), side=rope.side)
    own = turns(positions, rope.frequencies, rope.axes, "mrope")
    return RotatingCache(cache, spec.kv_heads, lambda _: own, "mrope")


def _images(cache: PagedKVCache, spec: KVCacheSpec, embeddings: Tensor) -> Tensor:
    """The mean over a token's sequence up to itself of the marks of images; ``(..., heads, d)``.

    Queries and keys of zero give equal weights. With ``c`` marks among ``n`` tokens every value of
    the result is ``64 * c / n``. In float16 that is rounded at most three times, by 2**-11 of it: by
    the kernel for the tokens of this call, by that for those before, and where both are joined. So
    ``c`` is wrong by less than ``3 * c / 2048``, and up to 256 (``images.MOST_IMAGES``) the nearest whole
    number is right.
    """
    all_heads = spec.heads + 2 * spec.kv_heads
    values_from = spec.heads + spec.kv_heads

    def compute(states: Any) -> Any:
        batch, sequence, width = states.shape
        column = width - MARKERS + _LAST
        zero = tirx.const(0.0, states.dtype)
        mark = tirx.const(_MARK, states.dtype)
        return te.compute(
            (batch, sequence, all_heads, spec.head_dim),
            lambda b, s, h, _d: tirx.if_then_else(
                h >= values_from, states[b, s, column] * mark, zero
            ),
            name="image_marks",
        )

    marks = op.tensor_expr_op(compute, "image_marks", [embeddings])
    return cache.attention_with_fused_qkv(spec.layers - 1, marks, spec.heads, sm_scale=1.0)


def _positions(numbers: Tensor, embeddings: Tensor, means: Tensor, *, side: int) -> Tensor:
    """Positions in time, height and width; int32 ``(3, batch * seq)``.

    Args:
        numbers: of the tokens in their sequences, int32 ``(batch * seq,)``.
        embeddings: ``(batch, seq, hidden + MARKERS)``.
        means: see :func:`_images`.
        side: tokens along each side of an image.
    """
    saved = side * side - side

    def compute(number: Any, states: Any, mean: Any) -> Any:
        _, sequence, width = states.shape

        def value(axis: Any, token: Any) -> Any:
            batch, s = token // sequence, token % sequence

            def marker(index: int) -> Any:
                column = states[batch, s, width - MARKERS + index].astype("float32")
                return (column + tirx.const(0.5, "float32")).astype("int32")

            count = mean[batch, s, 0, 0].astype("float32") * (number[token] + 1).astype("float32")
            scaled = count * tirx.const(1 / _MARK, "float32") + tirx.const(0.5, "float32")
            before = scaled.astype("int32") - marker(_LAST)
            row, column = marker(_ROW), marker(_COLUMN)
            # Of text all markers are zero.
            first = number[token] - before * saved - (row * side + column)
            return first + tirx.if_then_else(
                axis == 0, 0, tirx.if_then_else(axis == 1, row, column)
            )

        return te.compute((3, number.shape[0]), value, name="mrope_positions")

    return op.tensor_expr_op(compute, "mrope_positions", [numbers, embeddings, means])
