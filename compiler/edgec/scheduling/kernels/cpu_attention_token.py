"""Attention of one token per sequence on CPUs: what a part of its context adds, and how parts merge.

It is bound by reading keys and values, so that each is loaded and converted once for all query heads
that share it, and that some heads are a task: theirs lie one after another in a page. Products of some keys with some heads lie side by side in registers; folding them
gives one vector with a score per lane, in which all that softmax needs goes on without leaving the
lanes: a lane belongs to one head and to every so many keys. Then the values, weighted, are added to
results that stay in registers while a page passes.

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

    from edgec.scheduling.kernels.cpu_attention_blocks import (
        Attention,
        KeysTogether,
        Page,
        Pages,
    )

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


class Token:
    """What a task keeps while pages pass: one token with some key-value heads and all query heads of these.

    Attributes:
        rows: query heads; those of a key-value head lie side by side.
        query: ``(rows, head_dim)``, what keys are multiplied by.
        result: likewise, what came of each, not yet divided by the sum of weights.
        top: ``(key-value heads, tiles, lanes)``, the largest score so far; see :class:`Lanes`.
        total: likewise, sums of weights.
        source: where the kernel rotates, the query as it was projected.
        keys: and a page of one head's rotated keys.
        cosine: and those of the query's angles; ``sine`` likewise.
    """

    def __init__(self, a: Attention) -> None:
        self.a = a
        self.lanes = lanes = Lanes.of(a)
        self.rows = a.together * a.group
        of_tiles = (a.together, lanes.tiles, lanes.count)
        of_scores = (a.together, lanes.tiles, PAGES * lanes.per_page, lanes.count)
        self.query = T.sblock_alloc_buffer((self.rows, a.head_dim))
        self.result = T.sblock_alloc_buffer((self.rows, a.head_dim))
        self.top = T.sblock_alloc_buffer(of_tiles)
        self.total = T.sblock_alloc_buffer(of_tiles)
        self._most = Vectors(1, lanes.count)
        self._scale = T.sblock_alloc_buffer((lanes.count,))
        self._scores = T.sblock_alloc_buffer(of_scores)
        if a.rope is not None:
            half = (a.head_dim // 2,)
            self.source = T.sblock_alloc_buffer((self.rows, a.head_dim))
            self.keys = T.sblock_alloc_buffer((BLOCK, a.head_dim))
            self.cosine = T.sblock_alloc_buffer(half)
            self.sine = T.sblock_alloc_buffer(half)

    def begin(self, q: Any, into: Any, row: Any, first_head: Any, scale: Any) -> None:
        """Nothing seen yet; the queries, scaled, go into a buffer.

        Products with them are scores in base 2, or with a soft cap what :func:`capped` takes.
        """
        a, lanes = self.a, self.lanes
        base = LOG2_E if a.soft_cap is None else 2 * LOG2_E / a.soft_cap
        factor = broadcast(scale * T.float32(base), a.lanes)
        with T.serial(0, a.together) as head:
            for tile in range(lanes.tiles):
                place = [head, tile, ramp(0, 1, lanes.count)]
                T.buffer_store(self.top, broadcast(T.float32(NOTHING), lanes.count), place)
                T.buffer_store(self.total, broadcast(T.float32(0), lanes.count), place)
        with T.serial(0, self.rows) as g:
            for lane in columns(a):
                value = as_float(q[row, (first_head + g) * a.head_dim + lane], a.lanes)
                T.buffer_store(into, value * factor, [g, lane])
                T.buffer_store(self.result, broadcast(T.float32(0), a.lanes), [g, lane])

    def attend(self, run: Run, keys: KeysTogether) -> None:
        """Take in a run of keys."""
        every = functools.partial(T.serial, 0, self.a.together)
        with T.serial(0, (run.pages + PAGES - 1) // PAGES) as block:
            start = T.Bind(run.start + block * PAGES)
            count = T.Bind(T.min(run.start + run.pages - start, PAGES))
            with T.serial(0, count) as page:
                low, high = run.within(start + page)

                def score(pages: Pages) -> None:
                    with every() as head:
                        found = run.turned(self, pages.of(head), head, low, high)
                        self._score(found, head, page, low, high)

                keys.at(start + page, score)
            with every() as head:
                for tile in range(self.lanes.tiles):
                    self._soften(head, tile, count)
            with T.serial(0, count) as page:
                within = run.within(start + page)
                ahead = T.Bind(start + page + PAGES)

                def weigh(pages: Pages) -> None:
                    with every() as head:
                        self._weigh(pages.of(head), head, page, within, ahead)

                keys.again(start + page, weigh)

    def _score(self, keys: Page, head: Any, page: Any, low: Any, high: Any) -> None:
        """Scores of a head's page, number ``page`` of the block."""
        a, lanes = self.a, self.lanes
        with T.serial(0, lanes.per_page) as step:
            first = T.Bind(step * lanes.keys)
            for key in range(lanes.keys):
                keys.prefetch(1, first + key)
            for tile in range(lanes.tiles):
                rows = self._rows(head, tile)
                products = [broadcast(T.float32(0), lanes.count)] * lanes.count
                for column in columns(a):
                    queries = [T.Bind(self.query[row, column]) for row in rows]
                    for key in range(lanes.keys):
                        value = T.Bind(keys.load(0, first + key, column))
                        for g, query in enumerate(queries):
                            number = key * lanes.heads + g
                            product = fused(query, value, products[number], a.lanes)
                            products[number] = T.Bind(product)
                scores = sums_of(products, lanes.count)
                if a.soft_cap is not None:
                    scores = capped(a.soft_cap, scores, lanes.count)
                place = [head, tile, page * lanes.per_page + step, ramp(0, 1, lanes.count)]
                T.buffer_store(self._scores, scores, place)
        with T.If(high - low < BLOCK), T.Then(), T.serial(0, lanes.per_page) as step:
            numbers = [lane // lanes.heads for lane in range(lanes.count)]
            within = T.Bind(_constants(numbers) + broadcast(step * lanes.keys, lanes.count))
            seen = T.bitwise_and(
                within >= broadcast(low, lanes.count), within < broadcast(high, lanes.count)
            )
            nothing = broadcast(T.float32(NOTHING), lanes.count)
            for tile in range(lanes.tiles):
                place = [head, tile, page * lanes.per_page + step, ramp(0, 1, lanes.count)]
                scores = self._scores[tuple(place)]
                T.buffer_store(self._scores, T.Select(seen, scores, nothing), place)

    def _soften(self, head: Any, tile: int, pages: Any) -> None:
        """Turn the block's scores into weights, and scale what came before to them."""
        a, lanes = self.a, self.lanes
        place = ramp(0, 1, lanes.count)
        before = T.Bind(self.top[head, tile, place])
        self._most[0] = before
        with T.serial(0, pages * lanes.per_page) as step:
            self._most[0] = T.max(self._most[0], self._scores[head, tile, step, place])
        top = T.Bind(lanes.over_keys(T.Bind(self._most[0]), T.max))
        scale = exp2(before - top, lanes.count)
        T.buffer_store(self._scale, scale, [place])
        T.buffer_store(self.top, top, [head, tile, place])
        # A sum of its own, so that no product and sum meet here or there.
        own = Vectors(1, lanes.count)
        own.clear()
        with T.serial(0, pages * lanes.per_page) as step:
            weight = exp2(self._scores[head, tile, step, place] - top, lanes.count)
            T.buffer_store(self._scores, weight, [head, tile, step, place])
            own[0] = own[0] + weight
        total = fused(self.total[head, tile, place], scale, own[0], lanes.count)
        T.buffer_store(self.total, total, [head, tile, place])
        for g, row in enumerate(self._rows(head, tile)):
            share = T.Bind(broadcast(self._scale[g], a.lanes))
            for column in columns(a):
                T.buffer_store(self.result, self.result[row, column] * share, [row, column])

    def _weigh(
        self, page: Page, head: Any, number: Any, within: tuple[Any, Any], ahead: Any
    ) -> None:
        """Add the values of a head's page, and ask for the keys of the page ``ahead``."""
        a, lanes = self.a, self.lanes
        own = columns(a)
        for tile in range(lanes.tiles):
            rows = self._rows(head, tile)
            width = max(1, _accumulators(a) // len(rows))
            for left in range(0, len(own), width):
                part = own[left : left + width]
                places = [(row, column) for row in rows for column in part]
                sums = Vectors(len(places), a.lanes)
                for number_of_sum, (row, column) in enumerate(places):
                    sums[number_of_sum] = self.result[row, column]
                # What lies beside these keys may be anything, so it is not even multiplied by 0.
                with T.serial(*within) as key:
                    if not left and not tile:
                        page.prefetch(0, key, ahead)
                    step = T.Bind(number * lanes.per_page + key // lanes.keys)
                    lane = T.Bind(key % lanes.keys * lanes.heads)
                    values = [T.Bind(page.load(1, key, column)) for column in part]
                    for g in range(len(rows)):
                        score = self._scores[head, tile, step, lane + g]
                        weight = T.Bind(broadcast(score, a.lanes))
                        for c, value in enumerate(values):
                            place = g * len(part) + c
                            sums[place] = fused(weight, value, sums[place], a.lanes)
                for number_of_sum, (row, column) in enumerate(places):
                    T.buffer_store(self.result, sums[number_of_sum], [row, column])

    def _rows(self, head: Any, tile: int) -> list[Any]:
        """Which rows of queries belong to a set of a key-value head's query heads."""
        first = tile * self.lanes.heads
        last = min(first + self.lanes.heads, self.a.group)
        return [head * self.a.group + g for g in range(first, last)]


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
        turned: Callable[[Token, Page, Any, Any, Any], Page] | None = None,
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

    def turned(self, token: Token, keys: Page, head: Any, low: Any, high: Any) -> Page:
        """A page's keys of one of a token's heads, as products take them."""
        return keys if self._turned is None else self._turned(token, keys, head, low, high)


def _accumulators(a: Attention) -> int:
    """Results in registers; processors with 256-bit registers have 16 of them."""
    return _ACCUMULATORS if a.vector_bits != 256 else _ACCUMULATORS // 2


def _constants(numbers: list[int]) -> Any:
    """A vector of integers."""
    if len(numbers) == 1:
        return T.int32(numbers[0])
    return T.Shuffle([T.int32(number) for number in numbers], list(range(len(numbers))))
