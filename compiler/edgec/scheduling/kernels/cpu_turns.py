"""Rotary embedding inside CPU attention, for keys that lie in the cache as they were projected.

A score depends on the distance of query and key alone: rotating the query by its distance from the
first key of a block, and key number ``i`` of the block by ``i`` positions, gives the same product
as rotating both by their positions. So a block's keys are rotated once for all query heads, by
angles that are the same for every block, and queries turn back by the size of a block from one to
the next. Sines are computed once per token and run of blocks, not per key.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.cpu_attention_blocks import BLOCK
from edgec.scheduling.kernels.vectors import broadcast, ramp

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgec.scheduling.kernels.cpu_attention_blocks import Attention, Page
    from edgec.scheduling.kernels.cpu_attention_tile import Rows, Tile, Width
    from edgec.scheduling.kernels.cpu_attention_token import Token


class Turns:
    """Tables that all tasks of a kernel read: rotations by 0 to ``size`` positions.

    Args:
        a: with a rotary embedding of whole heads.
        size: keys of a block.
    """

    def __init__(self, a: Attention, size: int) -> None:
        assert a.rope is not None, "the kernel rotates"
        assert a.rope.rotary_dim == a.head_dim, "TVM's own kernels rotate whole heads only"
        self._a = a
        self._size = size
        self._half = a.head_dim // 2
        self._inverse = a.rope.inverse_frequencies()
        self._frequency = T.sblock_alloc_buffer((self._half,), "float32")
        self._cosine = T.sblock_alloc_buffer((size + 1, self._half), "float32")
        self._sine = T.sblock_alloc_buffer((size + 1, self._half), "float32")

    def fill(self) -> None:
        """Compute the tables, before the tasks begin."""
        for pair, angle in enumerate(self._inverse):
            T.buffer_store(self._frequency, T.float32(angle), [pair])
            for step in (0, 1):
                T.buffer_store(self._cosine, T.float32(math.cos(step * angle)), [step, pair])
                T.buffer_store(self._sine, T.float32(math.sin(step * angle)), [step, pair])
        for step in range(2, self._size + 1):
            # In halves, so that rounding errors add up over few products and not over all.
            one, other = step // 2, step - step // 2
            for low, _high in self._pairs():
                sine, cosine = self._at(one, low)
                turned = _turned(cosine, sine, *self._at(other, low))
                T.buffer_store(self._cosine, turned[0], [step, low])
                T.buffer_store(self._sine, turned[1], [step, low])

    def query(self, token: Token, distance: Any) -> None:
        """Rotate all queries by their distance from a page's first key."""
        self._angles(token, distance)
        with T.serial(0, token.rows) as g:
            for low, high in self._pairs():
                x, y = token.source[g, low], token.source[g, high]
                turned = _turned(x, y, token.sine[low], token.cosine[low])
                T.buffer_store(token.query, turned[0], [g, low])
                T.buffer_store(token.query, turned[1], [g, high])

    def page(self, token: Token, keys: Page, head: Any, first: Any, end: Any) -> TurnedKeys:
        """Rotate a head's queries back by one page, and the keys ``first`` to ``end`` (exclusive) of the next one."""
        with T.serial(head * self._a.group, (head + 1) * self._a.group) as g:
            for low, high in self._pairs():
                x, y = T.Bind(token.query[g, low]), T.Bind(token.query[g, high])
                sine, cosine = self._at(BLOCK, low)
                # The other way round: y and x change places.
                turned = _turned(y, x, sine, cosine)
                T.buffer_store(token.query, turned[1], [g, low])
                T.buffer_store(token.query, turned[0], [g, high])
        with T.serial(first, end) as key:
            self.key(token.keys, key, lambda lane: keys.load(0, key, lane))
        return TurnedKeys(keys, token)

    def tile(self, tile: Tile, given: Any, q: Any, rows: Rows, start: Any) -> None:
        """Rotate a tile's queries by their distance from the key at position ``start``."""
        half = self._half
        factor = T.Bind(tile.factor(given.scale))

        def use(lane: Any, row: Any, g: Any) -> None:
            with T.If((g == 0) | (lane == 0)), T.Then():
                self._angles(tile, given.positions[row] - start)
            first = T.Bind((rows.head + g) * self._a.head_dim)
            with T.serial(0, half) as pair:
                x, y = (
                    T.Bind(T.Cast("float32", q[row, first + feature]) * factor)
                    for feature in (pair, pair + half)
                )
                turned = _turned(x, y, tile.sine[pair], tile.cosine[pair])
                T.buffer_store(tile.queries, turned[0], [pair, lane])
                T.buffer_store(tile.queries, turned[1], [pair + half, lane])

        tile.each(rows, use)

    def next_tile(self, tile: Tile, width: Width) -> None:
        """Rotate a tile's queries back by one block."""
        with T.serial(0, self._half) as pair:
            sine, cosine = (
                T.Bind(broadcast(value, tile.lanes)) for value in self._at(self._size, pair)
            )
            for vector in range(width.vectors):
                lanes = ramp(vector * tile.lanes, 1, tile.lanes)
                x = T.Bind(tile.queries[pair, lanes])
                y = T.Bind(tile.queries[pair + self._half, lanes])
                turned = _turned(y, x, sine, cosine)
                T.buffer_store(tile.queries, turned[1], [pair, lanes])
                T.buffer_store(tile.queries, turned[0], [pair + self._half, lanes])

    def key(self, store: Any, key: Any, load: Callable[[Any], Any]) -> None:
        """Rotate key number ``key`` of a block by its place in it."""
        for low, high in self._pairs():
            x, y = T.Bind(load(low)), T.Bind(load(high))
            turned = _turned(x, y, *self._at(key, low))
            T.buffer_store(store, turned[0], [key, low])
            T.buffer_store(store, turned[1], [key, high])

    def _angles(self, state: Token | Tile, distance: Any) -> None:
        """Sines and cosines of a distance."""
        with T.serial(0, self._half) as pair:
            angle = T.Bind(T.Cast("float32", distance) * self._frequency[pair])
            T.buffer_store(state.cosine, T.cos(angle), [pair])
            T.buffer_store(state.sine, T.sin(angle), [pair])

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
    """A page whose keys were rotated; values are never rotated."""

    def __init__(self, keys: Page, token: Token) -> None:
        self._keys = keys
        self._token = token

    def prefetch(self, which: int, key: Any, block: Any = None) -> None:
        """Ask for a key or value; see :class:`Paged`."""
        self._keys.prefetch(which, key, block)

    def load(self, which: int, key: Any, lane: Any) -> Any:
        """A float32 vector of key (``which`` 0) or value (1) number ``key`` of the block."""
        return self._keys.load(which, key, lane) if which else self._token.keys[key, lane]


def _turned(x: Any, y: Any, sine: Any, cosine: Any) -> tuple[Any, Any]:
    """The point ``(x, y)`` rotated by an angle."""
    return x * cosine - y * sine, y * cosine + x * sine
