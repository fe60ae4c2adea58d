"""How a KV cache on CPUs holds keys and values, and the sizes that the runtime is told for it.

The runtime checks the shapes of what passes through a cache, and that all of it has the type of the
model, but never looks inside. So a head's key or value is a row of as many numbers of that type as its
bytes fill, whatever they are: the numbers themselves, float16, or int8 with a float32 that says what
a step is worth. The runtime is told of heads of that size, and of so many of them that a row of
queries has room for more: the new token's own key and value as they will be held, and a note that one
kernel leaves for another. See docs/decisions/0029-kv-cache-types.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvm.tirx.script import builder as T

from edgec.models.kv_cache import row_bytes
from edgec.scheduling.kernels.vectors import Row, as_float, broadcast, ramp, vector

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.models.kv_cache import KVCacheSpec

ITEM_BYTES = {"float32": 4, "float16": 2, "int8": 1}
_SCALE_BYTES = 4
_LARGEST = 127
_NOTE_BYTES = 4
_MOST_LANES = 16


@dataclass(frozen=True)
class CacheFormat:
    """What lies where in rows of the runtime's numbers.

    Attributes:
        heads: query heads.
        kv_heads: key-value heads.
        head_dim: size of a head.
        dtype: of the model, in which the runtime counts.
        stored: type of keys and values in the cache.
        cached: whether there is a cache. Without one heads are what they are, and nothing lies beside
            queries.
    """

    heads: int
    kv_heads: int
    head_dim: int
    dtype: str
    stored: str
    cached: bool = True

    @classmethod
    def of(cls, spec: KVCacheSpec) -> CacheFormat:
        """The format of a model's cache."""
        return cls(spec.heads, spec.kv_heads, spec.head_dim, spec.dtype, spec.kept_dtype)

    @property
    def row(self) -> int:
        """Numbers of a held key or value: what the runtime takes for the size of a head."""
        count, rest = divmod(row_bytes(self.head_dim, self.stored), ITEM_BYTES[self.dtype])
        assert not rest, f"{self.head_dim} numbers of {self.stored} aren't whole {self.dtype}"
        return count

    @property
    def runtime_heads(self) -> int:
        """What the runtime takes for the number of query heads."""
        if not self.cached:
            return self.heads
        own = 2 * self.kv_heads * self.row
        note = _NOTE_BYTES // ITEM_BYTES[self.dtype]
        queries = -(-(self.queries + own + note) // self.row)
        fused = -(-(self.queries + 2 * self.kv_heads * self.head_dim - own) // self.row)
        return max(queries, fused)

    @property
    def sizes(self) -> tuple[int, int]:
        """What the runtime takes for the number of query heads and for the size of a head."""
        return self.runtime_heads, self.row

    @property
    def queries(self) -> int:
        """Numbers of a token's queries, and so of its results."""
        return self.heads * self.head_dim

    @property
    def fused(self) -> int:
        """Numbers of a token's queries, keys and values as the model gives them."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def query_width(self) -> int:
        """Numbers of a row of queries, or of results, as the runtime counts them."""
        return self.runtime_heads * self.row

    @property
    def fused_width(self) -> int:
        """Numbers of a row of queries, keys and values as the runtime counts them."""
        return (self.runtime_heads + 2 * self.kv_heads) * self.row

    def own(self, which: int, kv_head: Any) -> Any:
        """Where in a row of queries the token's own key (``which`` 0) or value (1) lies."""
        return (kv_head + which * self.kv_heads) * self.row + self.queries

    @property
    def note(self) -> Any:
        """Indices of the numbers in a row of queries that make up the note."""
        first = self.queries + 2 * self.kv_heads * self.row
        return ramp(first, 1, _NOTE_BYTES // ITEM_BYTES[self.dtype])

    def read_note(self, queries: Any, row: Any) -> Any:
        """The note of a token, int32; ``queries`` is ``(rows, query_width)``."""
        return T.reinterpret("int32", queries[row, self.note])

    def write_note(self, queries: Any, row: Any, value: Any) -> None:
        """Leave a note, int32."""
        count = _NOTE_BYTES // ITEM_BYTES[self.dtype]
        T.buffer_store(queries, T.reinterpret(vector(self.dtype, count), value), [row, self.note])

    def clear_note(self, queries: Any, row: Any) -> None:
        """Leave no word, which is 0."""
        count = _NOTE_BYTES // ITEM_BYTES[self.dtype]
        nothing = broadcast(T.Cast(self.dtype, 0), count)
        T.buffer_store(queries, nothing, [row, self.note])

    def load(self, rows: Any, place: Sequence[Any], feature: int, lanes: int) -> Any:
        """Features of a held key or value, as float32.

        Args:
            rows: a buffer of the runtime's numbers.
            place: of the row's first number in it.
            feature: the first one.
            lanes: how many.
        """
        *before, first = place
        items = ITEM_BYTES[self.dtype] // ITEM_BYTES[self.stored]
        count = lanes // items
        if not count:
            # Fewer than fill one number: take all that it has.
            number = rows[(*before, first + feature // items)]
            held = T.reinterpret(vector(self.stored, items), number)
            some = [held_lane(held, feature % items + lane) for lane in range(lanes)]
            held = some[0] if lanes == 1 else T.Shuffle(some, list(range(lanes)))
        else:
            numbers = rows[(*before, ramp(first + feature // items, 1, count))]
            held = numbers if items == 1 else T.reinterpret(vector(self.stored, lanes), numbers)
        values = as_float(held, lanes)
        if self.stored != "int8":
            return values
        return values * broadcast(self._scale(rows, before, first), lanes)

    def _scale(self, rows: Any, before: Sequence[Any], first: Any) -> Any:
        count = _SCALE_BYTES // ITEM_BYTES[self.dtype]
        last = first + self.row - count
        return T.reinterpret("float32", rows[(*before, ramp(last, 1, count))])

    def store(self, places: Sequence[tuple[Any, Sequence[Any]]], source: Any, lanes: int) -> None:
        """Hold a key or value, in several places.

        int8 numbers are symmetric and rounded to the nearest, to an even one between two; the largest
        magnitude is 127.

        Args:
            places: buffers, and where in them the row's first number goes.
            source: ``(head_dim,)`` float32.
            lanes: at a time; divides ``head_dim``.
        """
        items = ITEM_BYTES[self.dtype] // ITEM_BYTES[self.stored]
        lanes = max(lanes, items)
        inverse: Any = None
        if self.stored == "int8":
            top = self._largest(source, lanes)
            some = top > T.float32(0)
            inverse = T.Bind(T.if_then_else(some, T.float32(_LARGEST) / top, T.float32(0)))
            scale = T.Bind(top * T.float32(1 / _LARGEST))
        for feature in range(0, self.head_dim, lanes):
            values = source[ramp(feature, 1, lanes)]
            if self.stored == "int8":
                # The numbers are within +-127, so that neither conversion cuts off.
                steps = T.nearbyint(values * broadcast(inverse, lanes))
                values = T.Cast(vector("int32", lanes), steps)
            held = T.Cast(vector(self.stored, lanes), values)
            count = lanes // items
            if items > 1:
                held = T.reinterpret(vector(self.dtype, count), held)
            self._put(places, feature // items, T.Bind(held), count)
        if self.stored == "int8":
            count = _SCALE_BYTES // ITEM_BYTES[self.dtype]
            held = T.Bind(T.reinterpret(vector(self.dtype, count), scale))
            self._put(places, self.row - count, held, count)

    @staticmethod
    def _put(
        places: Sequence[tuple[Any, Sequence[Any]]], offset: int, numbers: Any, count: int
    ) -> None:
        for rows, (*before, first) in places:
            T.buffer_store(rows, numbers, [*before, ramp(first + offset, 1, count)])

    def _largest(self, source: Any, lanes: int) -> Any:
        largest: Any = None
        for feature in range(0, self.head_dim, lanes):
            magnitude = T.abs(source[ramp(feature, 1, lanes)])
            largest = magnitude if largest is None else T.max(largest, magnitude)
        if lanes == 1:
            return T.Bind(largest)
        fold = Row(lanes)
        fold.store(largest)
        return T.Bind(fold.reduce(T.max))

    def copy(self, target: Any, to: Sequence[Any], rows: Any, place: Sequence[Any]) -> None:
        """Copy a held key or value as it is."""
        *before, first = place
        *after, last = to
        start = 0
        while start < self.row:
            count = _MOST_LANES
            while count > self.row - start:
                count //= 2
            numbers = rows[(*before, ramp(first + start, 1, count))]
            T.buffer_store(target, numbers, [*after, ramp(last + start, 1, count)])
            start += count


def held_lane(held: Any, lane: int) -> Any:
    """One of a vector's lanes."""
    return T.Shuffle([held], [lane])
