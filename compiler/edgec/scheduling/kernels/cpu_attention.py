"""Attention over a paged or a ragged KV cache on CPUs, with the interface of TVM's kernels.

They replace TVM's own CPU kernels, which compute one product at a time on one thread and, in paged
prefill, walk over the whole capacity of the cache for every token. One token per sequence and many
are different problems: see ``cpu_attention_token`` and ``cpu_attention_tile``. All sums are float32,
each in a fixed order, whatever the number of threads.

A cache without sliding windows has rotary mode 0: keys are rotated when they are appended and
queries before they get here. With sliding windows it has mode 1: a key's position changes when
older ones leave, so that the kernels rotate what they read (see ``cpu_turns``). The kernels for
pages know one mode each, the one that the cache calls them with; the ragged one knows both.

Scores may have a soft cap, and in some layers tokens may see the latest keys only: blocks before
those are passed over.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.attention_arguments import (
    DecodeArguments,
    PagedPrefillArguments,
    RaggedPrefillArguments,
    indices,
    named,
    tensor,
    visible,
)
from edgec.scheduling.kernels.cpu_attention_blocks import (
    BLOCK,
    Attention,
    Paged,
    Ragged,
    Views,
    when,
)
from edgec.scheduling.kernels.cpu_attention_left import Left, leave, taken
from edgec.scheduling.kernels.cpu_attention_parts import PART, Parts
from edgec.scheduling.kernels.cpu_attention_tile import KEYS, NARROW, Rows, Span, Tile, Width
from edgec.scheduling.kernels.cpu_attention_token import Run, Token
from edgec.scheduling.kernels.cpu_turns import Turns
from edgec.scheduling.kernels.vectors import without_regions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from edgec.scheduling.kernels.attention_arguments import Heads
    from edgec.scheduling.kernels.cpu_attention_blocks import Keys


def paged_decode(a: Attention) -> Any:
    """One new token per sequence against its pages; all of them are visible to it."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named("batch_decode_paged_kv_cpu")
            given = DecodeArguments(a)
            with _parts(a, given, None) as (q, row, kv_head, pages, token):
                keys = Paged(a, given.pages, row, kv_head)
                token.begin(q, token.query, row, kv_head * a.group, given.scale)
                first = given.first(row, row)
                first = T.int32(0) if first is None else T.Bind(T.max(first, 0))
                token.attend(Run(first, T.Bind(given.pages.length(row)), pages), keys)
        return builder.get()


def paged_prefill(a: Attention) -> Any:
    """New tokens of several sequences, end to end, against the pages of their sequence.

    Tokens that the kernel before has left come one by one, each with all that it sees: see
    ``cpu_attention_left``.
    """
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named("batch_prefill_paged_kv_cpu")
            given = PagedPrefillArguments(a)
            with T.sblock("root"):
                without_regions()
                views = Views(a, given)
                with _tiles(a, given, views) as (sequence, kv_head, rows, tile):
                    _limits(tile, given, sequence, rows)
                    keys = Paged(a, given.pages, sequence, kv_head)
                    _attend(tile, given, views, rows, keys)
                Left(a, given, views).attend()
        return builder.get()


def ragged_prefill(a: Attention) -> Any:
    """New tokens of several sequences against the new keys of their sequence, not in pages yet.

    Sequences with few of them and some in pages are left to the kernel for pages.
    """
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named("batch_prefill_ragged_kv")
            given = RaggedPrefillArguments(a)
            inline = given.scalars["rotary_mode"] == 1
            turns = None if a.rope is None else Turns(a, KEYS)
            with T.sblock("root"):
                without_regions()
                views = Views(a, given)
                leave(a, given, views, inline)
                if turns is not None:
                    with when(inline):
                        turns.fill()
                with _tiles(a, given, views) as (sequence, kv_head, rows, tile):
                    _limits(tile, given, sequence, rows)
                    keys = Ragged(a, given, sequence, kv_head)
                    if turns is None:
                        _attend(tile, given, views, rows, keys)
                    else:
                        with T.If(inline):
                            with T.Then():
                                end = T.Bind(given.length(sequence))
                                spans = [Span(T.int32(0), end, given.offsets[sequence])]
                                _attend_turned(tile, given, views, rows, keys, turns, spans)
                            with T.Else():
                                _attend(tile, given, views, rows, keys)
        return builder.get()


def sliding_decode(a: Attention) -> Any:
    """As ``paged_decode``, with sliding windows: see :class:`_SlidingArguments`."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named("batch_decode_paged_kv_cpu_sliding_window")
            given = DecodeArguments(a, _SlidingArguments)
            turns = Turns(a, BLOCK)
            with _parts(a, given, turns) as (q, row, kv_head, pages, token):
                keys = Paged(a, given.pages, row, kv_head)
                token.begin(q, token.source, row, kv_head * a.group, given.scale)
                for span in given.pages.spans(row, given.offsets[row]):
                    run = Run(span.first, span.end, pages, turns.page)
                    with T.If(run.pages > 0), T.Then():
                        # Queries turn to a page before its keys are read.
                        before = (run.start - 1) * BLOCK + span.shift
                        turns.query(token, given.positions[row] - before)
                        token.attend(run, keys)
        return builder.get()


def sliding_prefill(a: Attention) -> Any:
    """As ``paged_prefill``, with sliding windows; every token sees all that is in the pages."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named("batch_prefill_paged_kv_cpu_sliding_window")
            given = PagedPrefillArguments(a, _SlidingArguments)
            turns = Turns(a, KEYS)
            with T.sblock("root"):
                without_regions()
                views = Views(a, given)
                turns.fill()
                with _tiles(a, given, views) as (sequence, kv_head, rows, tile):
                    keys = Paged(a, given.pages, sequence, kv_head)
                    spans = given.pages.spans(sequence, given.offsets[sequence])
                    _attend_turned(tile, given, views, rows, keys, turns, spans, whole=True)
        return builder.get()


class _SlidingArguments:
    """As ``PagedArguments`` where windows slide: a sequence keeps its first tokens and its latest ones.

    The places 0 to ``sinks`` (exclusive) hold the first tokens, those from ``offset`` to the end of
    the last page the latest; between the two lie tokens that have left. Positions count what is
    kept.
    """

    def __init__(self, a: Heads, batch: Any) -> None:
        shape = (T.int32(), 2, a.kv_heads, BLOCK, a.runtime_sizes[1])
        self.pages = tensor("pages", shape, a.dtype)
        self.indptr = indices("page_indptr", batch + 1)
        self.values = indices("page_values", T.int32())
        handle = T.arg("length_info_handle", T.handle())
        self._info = T.match_buffer(handle, (3, batch), "int32", elem_offset=T.int32())

    def spans(self, sequence: Any, shift: Any) -> Iterator[Span]:
        """Loop over what a sequence keeps; ``shift`` is the position of its first token."""
        count = T.Bind(self.indptr[sequence + 1] - self.indptr[sequence])
        offset = T.Bind(self._info[1, sequence])
        sinks = T.Bind(self._info[2, sequence])
        last = (count - 1) * BLOCK + self._info[0, sequence]
        end = T.Bind(T.if_then_else(count > 0, last, 0))
        with T.serial(0, 2) as which:
            latest = which == 1
            yield Span(
                T.Bind(T.if_then_else(latest, offset, 0)),
                T.Bind(T.if_then_else(latest, end, sinks)),
                T.Bind(T.if_then_else(latest, shift + sinks - offset, shift)),
            )


@contextlib.contextmanager
def _parts(
    a: Attention, given: DecodeArguments, turns: Turns | None
) -> Iterator[tuple[Any, Any, Any, tuple[Any, Any], Token]]:
    """Loop over parts of contexts and key-value heads, in parallel, and merge what comes of them."""
    with T.sblock("root"):
        without_regions()
        views = Views(a, given)
        if turns is not None:
            turns.fill()
        indptr = given.pages.indptr
        # Every sequence has at most one part that isn't full.
        most = given.pages.values.shape[0] // PART + given.rows
        parts = Parts(a, given.rows, lambda row: indptr[row + 1] - indptr[row], most)
        with parts.each() as (row, kv_head, pages, token):
            yield views.q, row, kv_head, pages, token
        parts.finish(views.out, given.lse)


@contextlib.contextmanager
def _tiles(
    a: Attention, given: PagedPrefillArguments | RaggedPrefillArguments, views: Views
) -> Iterator[tuple[Any, Any, Rows, Tile]]:
    """Loop over key-value heads and tiles of queries, in parallel; those that are left see nothing.

    Late tokens see more keys than early ones. So tiles come in pairs, one from either end: any two
    runs of tasks of the same length are about the same work.
    """
    size = Tile.lanes_of(a)
    counter = T.sblock_alloc_buffer((1,), "int32")
    T.buffer_store(counter, T.int32(0), [0])
    with T.serial(0, given.batch) as i:
        T.buffer_store(counter, counter[0] + _tiles_of(a, given, i, size), [0])
    count = T.Bind(counter[0])
    with T.parallel(0, a.kv_heads * count) as task, T.sblock("task"):
        without_regions()
        kv_head, number = T.Bind(task // count), T.Bind(task % count)
        turn = T.if_then_else(number % 2 == 0, number // 2, count - 1 - number // 2)
        found = T.sblock_alloc_buffer((2,), "int32")
        before = T.sblock_alloc_buffer((1,), "int32")
        T.buffer_store(before, T.int32(0), [0])
        wanted = T.Bind(turn)
        with T.serial(0, given.batch) as i:
            with T.If(wanted >= before[0]), T.Then():
                T.buffer_store(found, i, [0])
                T.buffer_store(found, wanted - before[0], [1])
            T.buffer_store(before, before[0] + _tiles_of(a, given, i, size), [0])
        sequence, first = T.Bind(found[0]), T.Bind(found[1] * size)
        token = T.Bind(given.q_indptr[sequence])
        total = T.Bind((given.q_indptr[sequence + 1] - token) * a.group)
        tail = T.Bind(T.min(total - first, size))
        rows = Rows(token, T.Bind(kv_head * a.group), first, tail, total)
        tile = Tile(a)
        tile.begin()
        with when(T.Not(taken(a, views, rows))):
            yield sequence, kv_head, rows, tile
        tile.finish(given, views.out, rows)


def _tiles_of(a: Attention, given: Any, sequence: Any, size: int) -> Any:
    new = given.q_indptr[sequence + 1] - given.q_indptr[sequence]
    return (new * a.group + size - 1) // size


def _limits(tile: Tile, given: Any, sequence: Any, rows: Rows) -> None:
    """Note which keys each query sees."""
    length = T.Bind(given.length(sequence))

    def use(lane: Any, row: Any, _head: Any) -> None:
        limit = visible(given.scalars["causal"], length, given.q_indptr, sequence, row)
        T.buffer_store(tile.limit, limit, [lane])
        first = given.first(row, sequence)
        T.buffer_store(tile.first, T.int32(0) if first is None else first, [lane])

    tile.each(rows, use)


def _widths(tile: Tile, rows: Rows, body: Callable[[Width], None]) -> None:
    """Few queries take one vector."""
    with T.If(rows.count <= tile.lanes):
        with T.Then():
            body(NARROW)
        with T.Else():
            body(tile.width)


def _attend(tile: Tile, given: Any, views: Views, rows: Rows, keys: Keys) -> None:
    """Attend to the keys that the tile's queries see."""
    tile.load(views.q, rows, given.scale)
    start, end = tile.seen()

    def body(width: Width) -> None:
        with T.serial(0, (end - start + KEYS - 1) // KEYS) as block:
            tile.block(keys, T.Bind(start + block * KEYS), end, width)

    _widths(tile, rows, body)


def _attend_turned(
    tile: Tile,
    given: Any,
    views: Views,
    rows: Rows,
    keys: Keys,
    turns: Turns,
    spans: Iterable[Span],
    *,
    whole: bool = False,
) -> None:
    """Attend to the keys of some spans, which are rotated here, as are the queries.

    Args:
        tile: whose limits are set, unless ``whole``.
        given: the kernel's arguments.
        views: of its queries and results.
        rows: the queries.
        keys: the keys.
        turns: rotates.
        spans: places of keys.
        whole: every query sees all of every span.
    """

    def body(width: Width) -> None:
        with T.serial(0, (end - start + KEYS - 1) // KEYS) as block:
            first = T.Bind(start + block * KEYS)
            tile.block(keys, first, end, width, turns.key)
            turns.next_tile(tile, width)

    for span in spans:
        with T.If(span.end > span.first), T.Then():
            if whole:
                tile.see(span)
            start, end = tile.seen()
            turns.tile(tile, given, views.q, rows, start + span.shift)
            _widths(tile, rows, body)
