"""A context cut into parts on CPUs, each a task of its own, and what comes of them merged.

Parts have a fixed length, and are merged by their largest scores as in Flash-Decoding
(https://arxiv.org/abs/2311.01282): all threads have work however few heads there are, and what comes out
doesn't depend on their number.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.attention_arguments import NOTHING
from edgec.scheduling.kernels.cpu_attention_blocks import columns, when
from edgec.scheduling.kernels.cpu_attention_token import Lanes, Token
from edgec.scheduling.kernels.vectors import (
    broadcast,
    exp2,
    fused,
    ramp,
    vector,
    without_regions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgec.scheduling.kernels.cpu_attention_blocks import Attention

PART = 16
"""Pages of a part: keys and values of its heads are many times what merging its result costs."""
_MERGED_ALONE = 8
"""Parts of contexts from which merging them pays for waking threads."""


class Parts:
    """The parts of all tokens' contexts, and room for what comes of each.

    Args:
        a: the attention.
        rows: number of tokens.
        pages_of: how many pages a token sees; none if it isn't one of these.
        most: parts that there may be.
        among: whether a token is one of these; None: all are.
    """

    def __init__(
        self,
        a: Attention,
        rows: Any,
        pages_of: Callable[[Any], Any],
        most: Any,
        among: Callable[[Any], Any] | None = None,
    ) -> None:
        self._a, self._rows, self._pages_of, self._among = a, rows, pages_of, among
        lanes = Lanes.of(a)
        self._results = T.sblock_alloc_buffer((a.kv_heads, most, a.group, a.head_dim), "float32")
        of_tiles = (a.kv_heads, most, lanes.tiles, lanes.count)
        self._tops = T.sblock_alloc_buffer(of_tiles, "float32")
        self._totals = T.sblock_alloc_buffer(of_tiles, "float32")
        self._count = T.sblock_alloc_buffer((1,), "int32")
        T.buffer_store(self._count, T.int32(0), [0])
        with T.serial(0, rows) as row:
            T.buffer_store(self._count, self._count[0] + self._parts_of(row), [0])
        self.count = T.Bind(self._count[0])

    def _parts_of(self, row: Any) -> Any:
        return (self._pages_of(row) + PART - 1) // PART

    def find(self, part: Any) -> tuple[Any, Any, Any]:
        """The token that a part belongs to, its first page, and the page after its last."""
        found = T.sblock_alloc_buffer((2,), "int32")
        before = T.sblock_alloc_buffer((1,), "int32")
        T.buffer_store(before, T.int32(0), [0])
        with T.serial(0, self._rows) as row:
            count = T.Bind(self._parts_of(row))
            with T.If((part >= before[0]) & (part < before[0] + count)), T.Then():
                T.buffer_store(found, row, [0])
                T.buffer_store(found, part - before[0], [1])
            T.buffer_store(before, before[0] + count, [0])
        first = T.Bind(found[1] * PART)
        return T.Bind(found[0]), first, T.Bind(first + PART)

    @contextlib.contextmanager
    def each(self) -> Iterator[tuple[Any, Any, tuple[Any, Any], Token]]:
        """Loop over parts and sets of key-value heads, in parallel.

        Heads come first, so that threads have an even share whatever the contexts' lengths.

        Yields:
            The token, the first of the heads, the pages, and what comes of them.
        """
        a = self._a
        with T.parallel(0, a.kv_heads // a.together * self.count) as task, T.sblock("task"):
            without_regions()
            kv_head, part = T.Bind(task // self.count * a.together), T.Bind(task % self.count)
            row, first, end = self.find(part)
            token = Token(self._a)
            yield row, kv_head, (first, end), token
            self.keep(token, kv_head, part)

    def finish(self, out: Any, lse: Any) -> None:
        """Merge the parts and write what comes of each token."""

        def run(loop: Callable[[int, int], Any]) -> None:
            with loop(0, self._a.kv_heads) as kv_head, T.sblock("merge"):
                without_regions()
                self.merge(out, lse, kv_head)

        with T.If(self.count > _MERGED_ALONE):
            with T.Then():
                run(T.parallel)
            with T.Else():
                run(T.serial)

    def keep(self, token: Token, kv_head: Any, part: Any) -> None:
        """Note what came of a part."""
        a, lanes = self._a, token.lanes
        every = ramp(0, 1, lanes.count)
        with T.serial(0, a.together) as head:
            for tile in range(lanes.tiles):
                place = [kv_head + head, part, tile, every]
                T.buffer_store(self._tops, token.top[head, tile, every], place)
                total = T.Bind(token.total[head, tile, every])
                total = lanes.over_keys(total, lambda left, right: left + right)
                T.buffer_store(self._totals, total, place)
            with T.serial(0, a.group) as g:
                for column in columns(a):
                    result = token.result[head * a.group + g, column]
                    T.buffer_store(self._results, result, [kv_head + head, part, g, column])

    def merge(self, out: Any, lse: Any, kv_head: Any) -> None:
        """Write each token's result and log-sum-exp of the heads that share a key-value head."""
        a = self._a
        first = T.sblock_alloc_buffer((1,), "int32")
        top = T.sblock_alloc_buffer((1,), "float32")
        total = T.sblock_alloc_buffer((1,), "float32")
        sums = T.sblock_alloc_buffer((a.head_dim,), "float32")
        T.buffer_store(first, T.int32(0), [0])
        with T.serial(0, self._rows) as row:
            begin, count = T.Bind(first[0]), T.Bind(self._parts_of(row))
            T.buffer_store(first, begin + count, [0])
            among = contextlib.nullcontext() if self._among is None else when(self._among(row))
            with among, T.serial(0, a.group) as g:
                T.buffer_store(top, T.float32(NOTHING), [0])
                T.buffer_store(total, T.float32(0), [0])
                for column in columns(a):
                    T.buffer_store(sums, broadcast(T.float32(0), a.lanes), [column])
                with T.serial(0, count) as part:
                    T.buffer_store(
                        top, T.max(top[0], self._of(self._tops, kv_head, begin + part, g)), [0]
                    )
                with T.serial(0, count) as part:
                    self._add(sums, total, top, kv_head, begin + part, g)
                write(a, (out, lse), row, kv_head * a.group + g, (sums, top, total))

    def _add(self, sums: Any, total: Any, top: Any, kv_head: Any, part: Any, g: Any) -> None:
        a = self._a
        weight = exp2(self._of(self._tops, kv_head, part, g) - top[0], 1)
        own = self._of(self._totals, kv_head, part, g)
        T.buffer_store(total, fused(weight, own, total[0], 1), [0])
        for column in columns(a):
            result = self._results[kv_head, part, g, column]
            share = broadcast(weight, a.lanes)
            T.buffer_store(sums, fused(share, result, sums[column], a.lanes), [column])

    def _of(self, numbers: Any, kv_head: Any, part: Any, g: Any) -> Any:
        heads = Lanes.of(self._a).heads
        return numbers[kv_head, part, g // heads, g % heads]


def write(
    a: Attention, outs: tuple[Any, Any], row: Any, head: Any, seen: tuple[Any, Any, Any]
) -> None:
    """Write a weighted sum, divided by the sum of weights, and the log-sum-exp."""
    (out, lse), (sums, top, total) = outs, seen
    some = total[0] > T.float32(0)
    inverse = T.Bind(T.if_then_else(some, T.float32(1) / total[0], T.float32(0)))
    for column in columns(a):
        value = sums[column] * broadcast(inverse, a.lanes)
        place = head * a.head_dim + column
        T.buffer_store(out, T.Cast(vector(a.dtype, a.lanes), value), [row, place])
    logarithm = T.if_then_else(some, top[0] + T.log2(total[0]), T.float32(NOTHING))
    T.buffer_store(lse, logarithm, [row, head])
