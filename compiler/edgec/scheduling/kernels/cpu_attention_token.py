"""Attention of one token per sequence on CPUs: what a part of its context adds, and how parts merge.

It is bound by reading keys and values, so that each is loaded and converted once for all query heads
that share it. Products of some keys with some heads lie side by side in registers; folding them
gives one vector with a score per lane, in which all that softmax needs goes on without leaving the
lanes: a lane belongs to one head and to every so many keys. Then the values, weighted, are added to
results that stay in registers.

A context is cut into parts, each a task of its own: see ``cpu_attention_parts``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.attention_arguments import LOG2_E, NOTHING
from edgec.scheduling.kernels.cpu_attention_blocks import BLOCK, capped, columns
from edgec.scheduling.kernels.vectors import (
    Vectors,
    as_float,
    broadcast,
    exp2,
    fused,
    ramp,
    sums_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgec.scheduling.kernels.cpu_attention_blocks import Attention, Keys, Page

PAGES = 4
"""Pages between two looks at the largest score."""
_ACCUMULATORS = 16


@dataclass(frozen=True)
class Lanes:
    """Which head and which key a lane of scores belongs to: lane ``i`` to head ``i % heads``.

    Attributes:
        count: of lanes.
        heads: query heads side by side, a power of two.
        tiles: such sets of heads that make up a group.
    """

    count: int
    heads: int
    tiles: int

    @classmethod
    def of(cls, a: Attention) -> Lanes:
        """The most heads that fit."""
        heads = 1
        while heads < a.group and 2 * heads <= a.lanes:
            heads *= 2
        return cls(a.lanes, heads, -(-a.group // heads))

    @property
    def keys(self) -> int:
        """Keys of a vector of scores."""
        return self.count // self.heads

    @property
    def per_page(self) -> int:
        """Vectors of scores of one set of heads with a page."""
        return BLOCK // self.keys

    def over_keys(self, value: Any, combine: Callable[[Any, Any], Any]) -> Any:
        """Each head's lanes combined, in every lane of the head."""
        step = self.count // 2
        while step >= self.heads:
            turned = [(lane + step) % self.count for lane in range(self.count)]
            value = T.Bind(combine(value, T.Shuffle([value], turned)))
            step //= 2
        return value


@dataclass(frozen=True)
class _Weighed:
    """Sums that values are added to.

    Attributes:
        sums: one of each head and vector of columns.
        tile: number of the set of heads.
        columns: of the values.
    """

    sums: Vectors
    tile: int
    columns: list[Any]


class Token:
    """What a task keeps while pages pass: one token with the query heads that share a key-value head.

    ``query`` is what keys are multiplied by. Where the kernel rotates, ``source`` is the query as
    it was projected, ``keys`` a page of rotated keys, and ``cosine`` and ``sine`` those of the
    query's angles.
    """

    def __init__(self, a: Attention) -> None:
        self.a = a
        self.lanes = lanes = Lanes.of(a)
        self.query = T.sblock_alloc_buffer((a.group, a.head_dim))
        # Read from one side and written to the other, in turns. Were they the same places, LLVM would keep
        # them in registers while keys pass, too, and there are too few: loops then run on the stack.
        self._results = T.sblock_alloc_buffer((2, a.group, a.head_dim))
        self._side = T.sblock_alloc_buffer((1,), "int32")
        self.top = Vectors(lanes.tiles, lanes.count)
        self.total = Vectors(lanes.tiles, lanes.count)
        self._most = Vectors(1, lanes.count)
        self._scale = T.sblock_alloc_buffer((lanes.tiles, lanes.count))
        self._scores = T.sblock_alloc_buffer(
            (lanes.tiles, PAGES * lanes.per_page, lanes.count), "float32"
        )
        if a.rope is not None:
            half = (a.head_dim // 2,)
            self.source = T.sblock_alloc_buffer((a.group, a.head_dim))
            self.keys = T.sblock_alloc_buffer((BLOCK, a.head_dim))
            self.cosine = T.sblock_alloc_buffer(half)
            self.sine = T.sblock_alloc_buffer(half)

    def begin(self, q: Any, into: Any, row: Any, first_head: Any, scale: Any) -> None:
        """Nothing seen yet; the queries of the group, scaled, go into a buffer.

        Products with them are scores in base 2, or with a soft cap what :func:`capped` takes.
        """
        a = self.a
        base = LOG2_E if a.soft_cap is None else 2 * LOG2_E / a.soft_cap
        factor = broadcast(scale * T.float32(base), a.lanes)
        for tile in range(self.lanes.tiles):
            self.top[tile] = broadcast(T.float32(NOTHING), self.lanes.count)
        self.total.clear()
        T.buffer_store(self._side, T.int32(0), [0])
        with T.serial(0, a.group) as g:
            for lane in columns(a):
                value = as_float(q[row, (first_head + g) * a.head_dim + lane], a.lanes)
                T.buffer_store(into, value * factor, [g, lane])
                T.buffer_store(self._results, broadcast(T.float32(0), a.lanes), [0, g, lane])

    def result(self, head: Any, column: Any) -> Any:
        """What came of a head of the group, not yet divided by the sum of weights."""
        return self._results[self._side[0], head, column]

    def attend(self, run: Run, keys: Keys) -> None:
        """Take in a run of keys."""
        with T.serial(0, (run.pages + PAGES - 1) // PAGES) as block:
            start = T.Bind(run.start + block * PAGES)
            count = T.Bind(T.min(run.start + run.pages - start, PAGES))
            with T.serial(0, count) as page:
                low, high = run.within(start + page)

                def use(found: Page, page: Any = page, low: Any = low, high: Any = high) -> None:
                    self._score(run.turned(self, found, low, high), page, low, high)

                keys.at(start + page, use)
            for tile in range(self.lanes.tiles):
                self._soften(tile, count)
            for tile in range(self.lanes.tiles):
                self._add_values(keys, run, start, count, tile)
            T.buffer_store(self._side, T.int32(1) - self._side[0], [0])

    def _score(self, keys: Page, page: Any, low: Any, high: Any) -> None:
        """Scores of the selected page, number ``page`` of the block."""
        a, lanes = self.a, self.lanes
        with T.serial(0, lanes.per_page) as step:
            first = T.Bind(step * lanes.keys)
            for key in range(lanes.keys):
                keys.prefetch(1, first + key)
            for tile in range(lanes.tiles):
                heads = self._heads(tile)
                products = [broadcast(T.float32(0), lanes.count)] * lanes.count
                for column in columns(a):
                    queries = [T.Bind(self.query[head, column]) for head in heads]
                    for key in range(lanes.keys):
                        value = T.Bind(keys.load(0, first + key, column))
                        for g, query in enumerate(queries):
                            number = key * lanes.heads + g
                            product = fused(query, value, products[number], a.lanes)
                            products[number] = T.Bind(product)
                scores = sums_of(products, lanes.count)
                if a.soft_cap is not None:
                    scores = capped(a.soft_cap, scores, lanes.count)
                place = [tile, page * lanes.per_page + step, ramp(0, 1, lanes.count)]
                T.buffer_store(self._scores, scores, place)
        with T.If(high - low < BLOCK), T.Then(), T.serial(0, lanes.per_page) as step:
            numbers = [lane // lanes.heads for lane in range(lanes.count)]
            within = T.Bind(_constants(numbers) + broadcast(step * lanes.keys, lanes.count))
            seen = T.bitwise_and(
                within >= broadcast(low, lanes.count), within < broadcast(high, lanes.count)
            )
            nothing = broadcast(T.float32(NOTHING), lanes.count)
            for tile in range(lanes.tiles):
                place = [tile, page * lanes.per_page + step, ramp(0, 1, lanes.count)]
                scores = self._scores[tuple(place)]
                T.buffer_store(self._scores, T.Select(seen, scores, nothing), place)

    def _soften(self, tile: int, pages: Any) -> None:
        """Turn the block's scores into weights; what came before is to be scaled."""
        lanes = self.lanes
        place = ramp(0, 1, lanes.count)
        before = T.Bind(self.top[tile])
        self._most[0] = before
        with T.serial(0, pages * lanes.per_page) as step:
            self._most[0] = T.max(self._most[0], self._scores[tile, step, place])
        top = T.Bind(lanes.over_keys(T.Bind(self._most[0]), T.max))
        scale = exp2(before - top, lanes.count)
        T.buffer_store(self._scale, scale, [tile, place])
        self.top[tile] = top
        # A sum of its own, so that no product and sum meet here or there.
        own = Vectors(1, lanes.count)
        own.clear()
        with T.serial(0, pages * lanes.per_page) as step:
            weight = exp2(self._scores[tile, step, place] - top, lanes.count)
            T.buffer_store(self._scores, weight, [tile, step, place])
            own[0] = own[0] + weight
        self.total[tile] = fused(self.total[tile], scale, own[0], lanes.count)

    def _add_values(self, keys: Keys, run: Run, start: Any, count: Any, tile: int) -> None:
        a = self.a
        heads = self._heads(tile)
        own = columns(a)
        width = max(1, _accumulators(a) // len(heads))
        for left in range(0, len(own), width):
            part = own[left : left + width]
            sums = Vectors(len(heads) * len(part), a.lanes)
            for g, head in enumerate(heads):
                scale = T.Bind(broadcast(self._scale[tile, g], a.lanes))
                for c, column in enumerate(part):
                    sums[g * len(part) + c] = self.result(head, column) * scale
            with T.serial(0, count) as page:
                low, high = run.within(start + page)
                ahead = T.Bind(start + page + PAGES) if left == 0 and tile == 0 else None
                weigh = functools.partial(
                    self._weigh, _Weighed(sums, tile, part), T.Bind(page), (low, high), ahead
                )
                keys.again(start + page, weigh)
            for g, head in enumerate(heads):
                for c, column in enumerate(part):
                    place = [1 - self._side[0], head, column]
                    T.buffer_store(self._results, sums[g * len(part) + c], place)

    def _weigh(
        self, to: _Weighed, number: Any, within: tuple[Any, Any], ahead: Any, page: Page
    ) -> None:
        """Add a page's values, and ask for the keys of the page ``ahead`` unless that is None."""
        lanes, heads = self.lanes, self._heads(to.tile)
        # What lies beside these keys may be anything, so it is not even multiplied by 0.
        with T.serial(*within) as key:
            if ahead is not None:
                page.prefetch(0, key, ahead)
            step = T.Bind(number * lanes.per_page + key // lanes.keys)
            lane = T.Bind(key % lanes.keys * lanes.heads)
            values = [T.Bind(page.load(1, key, column)) for column in to.columns]
            for g in range(len(heads)):
                weight = T.Bind(broadcast(self._scores[to.tile, step, lane + g], self.a.lanes))
                for c, value in enumerate(values):
                    place = g * len(values) + c
                    to.sums[place] = fused(weight, value, to.sums[place], self.a.lanes)

    def _heads(self, tile: int) -> list[int]:
        """Numbers of a set's heads within the group."""
        first = tile * self.lanes.heads
        return list(range(first, min(first + self.lanes.heads, self.a.group)))


class Run:
    """Keys ``first`` to ``end`` (exclusive) of a sequence, as far as some pages hold them.

    Args:
        first: the first key.
        end: after the last.
        pages: the first of the pages, and the one after the last.
        turned: gives a page's keys as products take them; they are as they are by default.
    """

    def __init__(
        self,
        first: Any,
        end: Any,
        pages: tuple[Any, Any],
        turned: Callable[[Token, Page, Any, Any], Page] | None = None,
    ) -> None:
        self._first, self._end = first, end
        self.start = T.Bind(T.max(first // BLOCK, pages[0]))
        last = T.min((end + BLOCK - 1) // BLOCK, pages[1])
        self.pages = T.Bind(T.max(last - self.start, 0) * T.Cast("int32", end > first))
        self._turned = turned

    def within(self, page: Any) -> tuple[Any, Any]:
        """What of a page belongs to the run."""
        low = T.Bind(T.max(self._first - page * BLOCK, 0))
        return low, T.Bind(T.min(self._end - page * BLOCK, BLOCK))

    def turned(self, token: Token, keys: Page, low: Any, high: Any) -> Page:
        """A page's keys, as products take them."""
        return keys if self._turned is None else self._turned(token, keys, low, high)


def _accumulators(a: Attention) -> int:
    """Results that stay in registers; processors with 256-bit registers have 16 of them."""
    return _ACCUMULATORS if a.vector_bits != 256 else _ACCUMULATORS // 2


def _constants(numbers: list[int]) -> Any:
    """A vector of integers."""
    if len(numbers) == 1:
        return T.int32(numbers[0])
    return T.Shuffle([T.int32(number) for number in numbers], list(range(len(numbers))))
