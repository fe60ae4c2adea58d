"""Rotary embedding inside CPU attention, for keys that lie in the cache as they were projected.

A score depends on the distance of query and key alone: rotating the query by its distance from the
first key of a block, and key number ``i`` of the block by ``i`` positions, gives the same product
as rotating both by their positions. So a block's keys are rotated once for all query heads, by
angles that are the same for every block, and the query turns back by 16 positions from one block to
the next. Sines are computed once per token and run of blocks, not per key.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.cpu_attention_blocks import BLOCK
from edgec.scheduling.kernels.vectors import ramp

if TYPE_CHECKING:
    from edgec.scheduling.kernels.cpu_attention_blocks import Attention, Keys, State


class Turns:
    """Tables that all tasks of a kernel read: rotations by 0 to 16 positions.

    Args:
        a: with a rotary embedding of whole heads.
    """

    def __init__(self, a: Attention) -> None:
        assert a.rope is not None, "the kernel rotates"
        assert a.rope.rotary_dim == a.head_dim, "TVM's own kernels rotate whole heads only"
        self._a = a
        self._half = a.head_dim // 2
        self._inverse = a.rope.inverse_frequencies()
        self._frequency = T.sblock_alloc_buffer((self._half,), "float32")
        self._cosine = T.sblock_alloc_buffer((BLOCK + 1, self._half), "float32")
        self._sine = T.sblock_alloc_buffer((BLOCK + 1, self._half), "float32")

    def fill(self) -> None:
        """Compute the tables, before the tasks begin."""
        for pair, angle in enumerate(self._inverse):
            T.buffer_store(self._frequency, T.float32(angle), [pair])
            for step in (0, 1):
                T.buffer_store(self._cosine, T.float32(math.cos(step * angle)), [step, pair])
                T.buffer_store(self._sine, T.float32(math.sin(step * angle)), [step, pair])
        for step in range(2, BLOCK + 1):
            # In halves, so that rounding errors add up over four products and not over sixteen.
            one, other = step // 2, step - step // 2
            for low, _high in self._pairs():
                sine, cosine = self._at(one, low)
                turned = _turned(cosine, sine, *self._at(other, low))
                T.buffer_store(self._cosine, turned[0], [step, low])
                T.buffer_store(self._sine, turned[1], [step, low])

    def query(self, state: State, distance: Any) -> None:
        """Rotate the group's queries by their distance from a block's first key."""
        with T.serial(0, self._half) as pair:
            angle = T.Cast("float32", distance) * self._frequency[pair]
            T.buffer_store(state.cosine, T.cos(angle), [pair])
            T.buffer_store(state.sine, T.sin(angle), [pair])
        with T.serial(0, self._a.group) as g:
            for low, high in self._pairs():
                x, y = state.source[g, low], state.source[g, high]
                turned = _turned(x, y, state.sine[low], state.cosine[low])
                T.buffer_store(state.query, turned[0], [g, low])
                T.buffer_store(state.query, turned[1], [g, high])

    def next_block(self, state: State) -> None:
        """Rotate the group's queries back by one block."""
        with T.serial(0, self._a.group) as g:
            for low, high in self._pairs():
                x, y = T.Bind(state.query[g, low]), T.Bind(state.query[g, high])
                sine, cosine = self._at(BLOCK, low)
                # The other way round: y and x change places.
                turned = _turned(y, x, sine, cosine)
                T.buffer_store(state.query, turned[1], [g, low])
                T.buffer_store(state.query, turned[0], [g, high])

    def keys(self, keys: Keys, state: State, first: Any, end: Any) -> TurnedKeys:
        """Rotate the keys ``first`` to ``end`` (exclusive) of a block by their place in it."""
        with T.serial(first, end) as key:
            for low, high in self._pairs():
                x, y = T.Bind(keys.load(0, key, low)), T.Bind(keys.load(0, key, high))
                turned = _turned(x, y, *self._at(key, low))
                T.buffer_store(state.keys, turned[0], [key, low])
                T.buffer_store(state.keys, turned[1], [key, high])
        return TurnedKeys(keys, state)

    def _at(self, step: Any, lane: Any) -> tuple[Any, Any]:
        """Sine and cosine of a rotation by ``step`` positions."""
        return self._sine[step, lane], self._cosine[step, lane]

    def _pairs(self) -> list[tuple[Any, Any]]:
        """Indices of the vectors in the first half of a head, and of their partners in the other."""
        starts = range(0, self._half, self._a.lanes)
        return [(self._vector(start), self._vector(self._half + start)) for start in starts]

    def _vector(self, start: int) -> Any:
        return ramp(start, 1, self._a.lanes)


class TurnedKeys:
    """A block whose keys were rotated; values are never rotated."""

    def __init__(self, keys: Keys, state: State) -> None:
        self._keys = keys
        self._state = state

    def load(self, which: int, key: Any, lane: Any) -> Any:
        """A float32 vector of key (``which`` 0) or value (1) number ``key`` of the block."""
        return self._keys.load(which, key, lane) if which else self._state.keys[key, lane]


def _turned(x: Any, y: Any, sine: Any, cosine: Any) -> tuple[Any, Any]:
    """The point ``(x, y)`` rotated by an angle."""
    return x * cosine - y * sine, y * cosine + x * sine
