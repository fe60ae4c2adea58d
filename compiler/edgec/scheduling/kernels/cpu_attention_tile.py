"""Attention of many tokens at once on CPUs: a tile of queries against blocks of keys.

Each lane of a vector is one query: a token with one of the heads that share a key-value head. So
queries lie transposed, a row per feature; a block's scores are the products of single numbers of keys
with such rows, softmax goes on within the lanes, and results are the products of single numbers of
values with rows of weights. Nothing is ever summed across lanes, and both products are register
tiles near the processor's peak. As in FlashAttention-2 (https://arxiv.org/abs/2307.08691) results are
rescaled once per block and divided at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.attention_arguments import LOG2_E, NOTHING
from edgec.scheduling.kernels.cpu_attention_blocks import BLOCK, capped, columns
from edgec.scheduling.kernels.vectors import Vectors, broadcast, exp2, ramp

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgec.scheduling.kernels.cpu_attention_blocks import Attention, Keys, Page

KEYS = 64
"""Keys of a block. With as many features they fill a quarter of an L1 cache with 512-bit registers."""
_PAGES = KEYS // BLOCK


@dataclass(frozen=True)
class Width:
    """The register tiles of some query vectors.

    Attributes:
        vectors: of queries.
        others: keys, or features of values, that meet them.
    """

    vectors: int
    others: int


NARROW = Width(1, 8)
"""Of a few queries, such as those that verify a draft."""


def wide(a: Attention) -> Width:
    """Of many queries: 16 of 32 registers hold results, 8 of 16 with 256 bits."""
    return Width(2, 4) if a.vector_bits == 256 else Width(4, 4)


@dataclass(frozen=True)
class Rows:
    """Queries of a sequence: ``count`` of them from ``first`` on, in order of token and then head.

    Attributes:
        token: the sequence's first token among all.
        head: the group's first query head.
        first: number of the first query.
        count: queries of the tile that exist.
        total: queries of the sequence.
    """

    token: Any
    head: Any
    first: Any
    count: Any
    total: Any


@dataclass(frozen=True)
class Span:
    """Consecutive places in pages or rows: ``first`` to ``end`` (exclusive).

    The key at place ``p`` has the position ``p + shift`` in its sequence.
    """

    first: Any
    end: Any
    shift: Any


class Tile:
    """What a task keeps while blocks of keys pass.

    ``queries`` and ``results`` are ``(head_dim, lanes)``. Every lane has the first key that it sees,
    and the one after the last.
    """

    def __init__(self, a: Attention) -> None:
        self.a = a
        self.lanes = a.vector_bits // 32
        self.width = wide(a)
        self.count = self.lanes_of(a)
        self.queries = T.sblock_alloc_buffer((a.head_dim, self.count), "float32")
        self._results = T.sblock_alloc_buffer((a.head_dim, self.count), "float32")
        self._scores = T.sblock_alloc_buffer((KEYS, self.count), "float32")
        self._keys = T.sblock_alloc_buffer((KEYS, a.head_dim), "float32")
        self._values = T.sblock_alloc_buffer((KEYS, a.head_dim), "float32")
        self.first = T.sblock_alloc_buffer((self.count,), "int32")
        self.limit = T.sblock_alloc_buffer((self.count,), "int32")
        self._range = T.sblock_alloc_buffer((4,), "int32")
        self._top = T.sblock_alloc_buffer((self.count,), "float32")
        self._total = T.sblock_alloc_buffer((self.count,), "float32")
        self._scale = T.sblock_alloc_buffer((self.count,), "float32")
        if a.rope is not None:
            self.cosine = T.sblock_alloc_buffer((a.head_dim // 2,), "float32")
            self.sine = T.sblock_alloc_buffer((a.head_dim // 2,), "float32")

    @staticmethod
    def lanes_of(a: Attention) -> int:
        """Queries of a tile."""
        return a.vector_bits // 32 * wide(a).vectors

    def see(self, span: Span) -> None:
        """All queries see a span, and nothing else."""
        for vector in range(self.width.vectors):
            lanes = self._vector(vector)
            T.buffer_store(self.first, broadcast(span.first, self.lanes), [lanes])
            T.buffer_store(self.limit, broadcast(span.end, self.lanes), [lanes])

    def each(self, rows: Rows, use: Callable[[Any, Any, Any], None]) -> None:
        """Loop over lanes; those without a query take the last one.

        Args:
            rows: the queries.
            use: called with lane, row of the token and number of the head within the group.
        """
        with T.serial(0, self.count) as lane:
            number = T.Bind(T.min(rows.first + lane, rows.total - 1))
            use(lane, T.Bind(rows.token + number // self.a.group), T.Bind(number % self.a.group))

    def begin(self) -> None:
        """Nothing seen yet."""
        for vector in range(self.width.vectors):
            lanes = self._vector(vector)
            nothing = broadcast(T.float32(NOTHING), self.lanes)
            T.buffer_store(self._top, nothing, [lanes])
            zero = broadcast(T.float32(0), self.lanes)
            T.buffer_store(self._total, zero, [lanes])
            with T.serial(0, self.a.head_dim) as feature:
                T.buffer_store(self._results, zero, [feature, lanes])

    def load(self, q: Any, rows: Rows, scale: Any) -> None:
        """Queries as they are, scaled: products are scores in base 2, or what :func:`capped` takes."""
        factor = T.Bind(self.factor(scale))

        def use(lane: Any, row: Any, g: Any) -> None:
            with T.serial(0, self.a.head_dim) as feature:
                place = (rows.head + g) * self.a.head_dim + feature
                value = T.Cast("float32", q[row, place]) * factor
                T.buffer_store(self.queries, value, [feature, lane])

        self.each(rows, use)

    def factor(self, scale: Any) -> Any:
        """What queries are multiplied by."""
        cap = self.a.soft_cap
        return scale * T.float32(LOG2_E if cap is None else 2 * LOG2_E / cap)

    def seen(self) -> tuple[Any, Any]:
        """The first key that any lane sees, rounded down to a page's first, and the one after the last."""
        self._fold(self.first, self._range, 0, T.min)
        self._fold(self.first, self._range, 1, T.max)
        self._fold(self.limit, self._range, 2, T.min)
        self._fold(self.limit, self._range, 3, T.max)
        start = T.Bind(T.max(self._range[0], 0) // BLOCK * BLOCK)
        return start, T.Bind(T.max(self._range[3], start))

    def _fold(
        self, numbers: Any, into: Any, place: int, combine: Callable[[Any, Any], Any]
    ) -> None:
        T.buffer_store(into, numbers[0], [place])
        with T.serial(1, self.count) as lane:
            T.buffer_store(into, combine(into[place], numbers[lane]), [place])

    def block(self, keys: Keys, first: Any, end: Any, width: Width, turn: Any = None) -> None:
        """Take in the keys ``first`` to ``first + KEYS``, but none from ``end`` on.

        Args:
            keys: their source.
            first: the first key of a page.
            end: after the last key.
            width: of the register tiles.
            turn: rotates keys, if given: ``turn(store, key, load)`` for number ``key`` of the block.
        """
        count = T.Bind(T.min(end - first, KEYS))
        low = T.Bind(self._range[0] - first)
        self._copy(keys, first // BLOCK, low, count, turn)
        steps = T.Bind((count + width.others - 1) // width.others)
        with T.serial(0, steps) as step:
            self._score(T.Bind(step * width.others), width)
        padded = T.Bind(steps * width.others)
        with T.If((first + padded > self._range[2]) | (first < self._range[1])), T.Then():
            self._mask(first, padded, width)
        self._soften(padded, width)
        with T.serial(0, self.a.head_dim // self._features(width)) as part:
            self._add_values(T.Bind(part * self._features(width)), padded, width)

    def _copy(self, keys: Keys, page: Any, low: Any, count: Any, turn: Any) -> None:
        """Keys and values of a block as float32, side by side; zeros for those out of its range."""
        a = self.a
        zero = broadcast(T.float32(0), a.lanes)
        with T.serial(0, (count + BLOCK - 1) // BLOCK) as index:

            def use(block: Page, index: Any = index) -> None:
                with T.serial(0, BLOCK) as key:
                    place = T.Bind(index * BLOCK + key)
                    with T.If((place >= low) & (place < count)):
                        with T.Then():
                            if turn is not None:
                                turn(self._keys, place, lambda lane: block.load(0, key, lane))
                            for column in columns(a):
                                if turn is None:
                                    value = block.load(0, key, column)
                                    T.buffer_store(self._keys, value, [place, column])
                                value = block.load(1, key, column)
                                T.buffer_store(self._values, value, [place, column])
                        with T.Else():
                            for column in columns(a):
                                T.buffer_store(self._keys, zero, [place, column])
                                T.buffer_store(self._values, zero, [place, column])

            keys.at(page + index, use)

    def _score(self, key: Any, width: Width) -> None:
        sums = Vectors(width.others * width.vectors, self.lanes)
        sums.clear()
        with T.serial(0, self.a.head_dim) as feature:
            queries = [T.Bind(self.queries[feature, self._vector(v)]) for v in range(width.vectors)]
            for other in range(width.others):
                number = T.Bind(broadcast(self._keys[key + other, feature], self.lanes))
                for v, query in enumerate(queries):
                    place = other * width.vectors + v
                    sums[place] = sums[place] + query * number
        for other in range(width.others):
            for v in range(width.vectors):
                score = sums[other * width.vectors + v]
                if self.a.soft_cap is not None:
                    score = capped(self.a.soft_cap, score, self.lanes)
                T.buffer_store(self._scores, score, [key + other, self._vector(v)])

    def _mask(self, first: Any, count: Any, width: Width) -> None:
        """Nothing is what a lane sees of keys that it doesn't see."""
        with T.serial(0, count) as key:
            for v in range(width.vectors):
                lanes = self._vector(v)
                place = T.Bind(broadcast(first + key, self.lanes))
                seen = T.bitwise_and(place >= self.first[lanes], place < self.limit[lanes])
                nothing = broadcast(T.float32(NOTHING), self.lanes)
                value = T.Select(seen, self._scores[key, lanes], nothing)
                T.buffer_store(self._scores, value, [key, lanes])

    def _soften(self, count: Any, width: Width) -> None:
        """Turn scores into weights, and find what results are to be scaled by."""
        nothing = broadcast(T.float32(NOTHING), self.lanes)
        tops, totals = (Vectors(width.vectors, self.lanes) for _ in range(2))
        for v in range(width.vectors):
            tops[v] = self._top[self._vector(v)]
        with T.serial(0, count) as key:
            for v in range(width.vectors):
                tops[v] = T.max(tops[v], self._scores[key, self._vector(v)])
        for v in range(width.vectors):
            lanes = self._vector(v)
            scale = exp2(self._top[lanes] - tops[v], self.lanes)
            T.buffer_store(self._scale, scale, [lanes])
            T.buffer_store(self._top, tops[v], [lanes])
            totals[v] = self._total[lanes] * scale
        with T.serial(0, count) as key:
            for v in range(width.vectors):
                lanes = self._vector(v)
                score = T.Bind(self._scores[key, lanes])
                weight = exp2(score - tops[v], self.lanes)
                weight = T.Select(score > nothing, weight, broadcast(T.float32(0), self.lanes))
                weight = T.Bind(weight)
                T.buffer_store(self._scores, weight, [key, lanes])
                totals[v] = totals[v] + weight
        for v in range(width.vectors):
            T.buffer_store(self._total, totals[v], [self._vector(v)])

    def _add_values(self, feature: Any, count: Any, width: Width) -> None:
        features = self._features(width)
        sums = Vectors(features * width.vectors, self.lanes)
        for v in range(width.vectors):
            lanes = self._vector(v)
            for f in range(features):
                sums[f * width.vectors + v] = self._results[feature + f, lanes] * self._scale[lanes]
        with T.serial(0, count) as key:
            weights = [T.Bind(self._scores[key, self._vector(v)]) for v in range(width.vectors)]
            for f in range(features):
                number = T.Bind(broadcast(self._values[key, feature + f], self.lanes))
                for v, weight in enumerate(weights):
                    place = f * width.vectors + v
                    sums[place] = sums[place] + weight * number
        for v in range(width.vectors):
            for f in range(features):
                value = sums[f * width.vectors + v]
                T.buffer_store(self._results, value, [feature + f, self._vector(v)])

    def finish(self, given: Any, out: Any, rows: Rows) -> None:
        """Write the results and log-sum-exps of the queries that exist."""
        a = self.a
        with T.serial(0, rows.count) as lane:
            number = T.Bind(rows.first + lane)
            row = T.Bind(rows.token + number // a.group)
            head = T.Bind(rows.head + number % a.group)
            total = T.Bind(self._total[lane])
            some = total > T.float32(0)
            inverse = T.Bind(T.if_then_else(some, T.float32(1) / total, T.float32(0)))
            with T.serial(0, a.head_dim) as feature:
                value = self._results[feature, lane] * inverse
                T.buffer_store(out, T.Cast(a.dtype, value), [row, head * a.head_dim + feature])
            logarithm = T.if_then_else(some, self._top[lane] + T.log2(total), T.float32(NOTHING))
            T.buffer_store(given.lse, logarithm, [row, head])

    def _features(self, width: Width) -> int:
        """Features of a register tile: as many as fit that divide a head."""
        features = width.others
        while self.a.head_dim % features:
            features //= 2
        return features

    def _vector(self, number: int) -> Any:
        return ramp(number * self.lanes, 1, self.lanes)
