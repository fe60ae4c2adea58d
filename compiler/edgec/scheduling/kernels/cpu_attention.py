"""Attention over a paged or a ragged KV cache on CPUs, with the interface of TVM's kernels.

One task handles one token and one key-value head with all query heads that share it. Keys pass in
blocks of one page: 16 dot products at a time, then an online softmax in base 2
(https://arxiv.org/abs/1805.02867), then the block's values weighted by it. A block is read once for
all query heads of the group and stays in the L1 cache for them.

They replace TVM's own CPU kernels, which compute one product at a time on one thread and, in paged
prefill, walk over the whole capacity of the cache for every token. All sums are float32.

A cache without sliding windows has rotary mode 0: keys are rotated when they are appended and
queries before they get here. With sliding windows it has mode 1: a key's position changes when
older ones leave, so that the kernels rotate what they read (see ``cpu_turns``). The kernels for
pages know one mode each, the one that the cache calls them with; the ragged one knows both.

Scores may have a soft cap, and in some layers tokens may see the latest keys only: blocks before
those are passed over.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.attention_arguments import (
    DecodeArguments,
    PagedArguments,
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
    State,
    begin,
    finish,
    part_of_a_block,
    whole_block,
)
from edgec.scheduling.kernels.cpu_turns import Turns
from edgec.scheduling.kernels.vectors import as_float, without_regions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from edgec.scheduling.kernels.attention_arguments import Heads
    from edgec.scheduling.kernels.cpu_attention_blocks import Keys


def paged_decode(a: Attention) -> Any:
    """One new token per sequence against its pages; all of them are visible to it."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named("batch_decode_paged_kv_cpu")
            given = DecodeArguments(a)
            with _tasks(a, given.rows) as (row, kv_head, state, _turns):
                state.limit = given.pages.length(row)
                keys = _Paged(a, given.pages, row, kv_head)
                _attend(_Task(a, given, row, kv_head, keys, state), given.first(row, row))
        return builder.get()


def paged_prefill(a: Attention) -> Any:
    """New tokens of several sequences, end to end, against the pages of their sequence."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named("batch_prefill_paged_kv_cpu")
            given = PagedPrefillArguments(a)
            with _tasks(a, given.rows) as (row, kv_head, state, _turns):
                sequence = _sequence_of(row, given)
                state.limit = _limit(given, sequence, row)
                keys = _Paged(a, given.pages, sequence, kv_head)
                _attend(_Task(a, given, row, kv_head, keys, state), given.first(row, sequence))
        return builder.get()


def ragged_prefill(a: Attention) -> Any:
    """New tokens of several sequences against the new keys of their sequence, not in pages yet."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named("batch_prefill_ragged_kv")
            given = RaggedPrefillArguments(a)
            inline = given.scalars["rotary_mode"] == 1
            with _tasks(a, given.rows, rotates=inline) as (row, kv_head, state, turns):
                sequence = _sequence_of(row, given)
                state.limit = _limit(given, sequence, row)
                keys = _Ragged(a, given.k, given.v, given.kv_indptr, sequence, kv_head)
                task = _Task(a, given, row, kv_head, keys, state)
                if turns is None:
                    _attend(task, given.first(row, sequence))
                else:
                    with T.If(inline):
                        with T.Then():
                            spans = [_Span(T.int32(0), state.limit, given.offsets[sequence])]
                            _attend_turned(task, turns, spans)
                        with T.Else():
                            _attend(task, given.first(row, sequence))
        return builder.get()


def sliding_decode(a: Attention) -> Any:
    """As ``paged_decode``, with sliding windows: see :class:`_SlidingArguments`."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named("batch_decode_paged_kv_cpu_sliding_window")
            given = DecodeArguments(a, _SlidingArguments)
            with _tasks(a, given.rows, rotates=True) as (row, kv_head, state, turns):
                keys = _Paged(a, given.pages, row, kv_head)
                spans = given.pages.spans(row, given.offsets[row])
                assert turns is not None, "the kernel rotates"
                _attend_turned(_Task(a, given, row, kv_head, keys, state), turns, spans)
        return builder.get()


def sliding_prefill(a: Attention) -> Any:
    """As ``paged_prefill``, with sliding windows; every token sees all that is in the pages."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named("batch_prefill_paged_kv_cpu_sliding_window")
            given = PagedPrefillArguments(a, _SlidingArguments)
            with _tasks(a, given.rows, rotates=True) as (row, kv_head, state, turns):
                sequence = _sequence_of(row, given)
                keys = _Paged(a, given.pages, sequence, kv_head)
                spans = given.pages.spans(sequence, given.offsets[sequence])
                assert turns is not None, "the kernel rotates"
                _attend_turned(_Task(a, given, row, kv_head, keys, state), turns, spans)
        return builder.get()


class _SlidingArguments:
    """As :class:`PagedArguments` where windows slide: a sequence keeps its first tokens and its latest ones.

    The places 0 to ``sinks`` (exclusive) hold the first tokens, those from ``offset`` to the end of
    the last page the latest; between the two lie tokens that have left. Positions count what is
    kept.
    """

    def __init__(self, a: Heads, batch: Any) -> None:
        shape = (T.int32(), 2, a.kv_heads, BLOCK, a.head_dim)
        self.pages = tensor("pages", shape, a.dtype)
        self.indptr = indices("page_indptr", batch + 1)
        self.values = indices("page_values", T.int32())
        handle = T.arg("length_info_handle", T.handle())
        self._info = T.match_buffer(handle, (3, batch), "int32", elem_offset=T.int32())

    def spans(self, sequence: Any, shift: Any) -> Iterator[_Span]:
        """Loop over what a sequence keeps; ``shift`` is the position of its first token."""
        count = T.Bind(self.indptr[sequence + 1] - self.indptr[sequence])
        offset = T.Bind(self._info[1, sequence])
        sinks = T.Bind(self._info[2, sequence])
        last = (count - 1) * BLOCK + self._info[0, sequence]
        end = T.Bind(T.if_then_else(count > 0, last, 0))
        with T.serial(0, 2) as which:
            latest = which == 1
            yield _Span(
                T.Bind(T.if_then_else(latest, offset, 0)),
                T.Bind(T.if_then_else(latest, end, sinks)),
                T.Bind(T.if_then_else(latest, shift + sinks - offset, shift)),
            )


@contextlib.contextmanager
def _tasks(
    a: Attention, rows: Any, rotates: Any = None
) -> Iterator[tuple[Any, Any, State, Turns | None]]:
    """Loop over tokens and key-value heads, in parallel.

    Heads come first: late tokens see more keys than early ones, so that the tokens of one head
    make an even share for each thread. If the kernel rotates what it reads, when ``rotates`` holds,
    tables for that are made first.
    """
    with T.sblock("root"):
        without_regions()
        turns = None
        if a.rope is not None:
            turns = Turns(a)
            if rotates is True:
                turns.fill()
            else:
                with T.If(rotates), T.Then():
                    turns.fill()
        with T.parallel(0, a.kv_heads * rows) as task, T.sblock("task"):
            without_regions()
            yield T.Bind(task % rows), T.Bind(task // rows), State(a), turns


class _Paged:
    """Keys and values of one sequence and head in pages."""

    def __init__(
        self,
        a: Attention,
        arguments: PagedArguments | _SlidingArguments,
        sequence: Any,
        kv_head: Any,
    ) -> None:
        self._a = a
        self._pages = arguments.pages
        self._values = arguments.values
        self._first = T.Bind(arguments.indptr[sequence])
        self._kv_head = kv_head
        self._page: Any = None

    def select(self, block: Any) -> None:
        """Make ``block`` the one that is read."""
        self._page = T.Bind(self._values[self._first + block])

    def load(self, which: int, key: Any, lane: Any) -> Any:
        """A vector of key (``which`` 0) or value (1) number ``key`` of the block."""
        values = self._pages[self._page, which, self._kv_head, key, lane]
        return as_float(values, self._a.lanes)


class _Ragged:
    """Keys and values of one sequence and head in the order of their tokens."""

    def __init__(
        self, a: Attention, k: Any, v: Any, indptr: Any, sequence: Any, kv_head: Any
    ) -> None:
        self._a = a
        self._arrays = (k, v)
        self._first = T.Bind(indptr[sequence])
        self._kv_head = kv_head
        self._row: Any = None

    def select(self, block: Any) -> None:
        """Make ``block`` the one that is read."""
        self._row = T.Bind(self._first + block * BLOCK)

    def load(self, which: int, key: Any, lane: Any) -> Any:
        """A vector of key (``which`` 0) or value (1) number ``key`` of the block."""
        values = self._arrays[which][self._row + key, self._kv_head, lane]
        return as_float(values, self._a.lanes)


def _sequence_of(row: Any, given: PagedPrefillArguments | RaggedPrefillArguments) -> Any:
    """The sequence whose tokens ``q_indptr[i]`` to ``q_indptr[i + 1]`` hold a row."""
    found = T.sblock_alloc_buffer((1,), "int32", scope="local")
    T.buffer_store(found, T.int32(0), [0])
    with T.serial(1, given.batch) as i, T.If(row >= given.q_indptr[i]), T.Then():
        T.buffer_store(found, i, [0])
    return T.Bind(found[0])


def _limit(given: PagedPrefillArguments | RaggedPrefillArguments, sequence: Any, row: Any) -> Any:
    """How many keys of its sequence a token sees."""
    length = given.length(sequence)
    return visible(given.scalars["causal"], length, given.q_indptr, sequence, row)


@dataclass(frozen=True)
class _Task:
    """One token's attention with all query heads that share a key-value head."""

    a: Attention
    given: DecodeArguments | PagedPrefillArguments | RaggedPrefillArguments
    row: Any
    kv_head: Any
    keys: _Paged | _Ragged
    state: State

    @property
    def first_head(self) -> Any:
        """The first of the query heads."""
        return T.Bind(self.kv_head * self.a.group)

    def begin(self, into: Any, first_head: Any) -> None:
        """Nothing seen yet; the scaled queries go into a buffer."""
        given = self.given
        begin(self.a, self.state, given.q, into, self.row, first_head, given.scale)

    def block(self, keys: Keys, low: Any, high: Any) -> None:
        """Take in the keys ``low`` to ``high`` (exclusive) of the selected block."""
        with T.serial(0, self.a.group) as g, T.If(high - low == BLOCK):
            with T.Then():
                whole_block(self.a, keys, self.state, g)
            with T.Else():
                part_of_a_block(self.a, keys, self.state, g, low, high)

    def finish(self, first_head: Any) -> None:
        """Write the results."""
        given = self.given
        with T.serial(0, self.a.group) as g:
            finish(self.a, given.out, given.lse, self.row, first_head + g, self.state, g)


def _attend(task: _Task, first: Any) -> None:
    """Attend to the keys before ``state.limit``, from ``first`` on or, if it is None, from 0."""
    a, state, keys = task.a, task.state, task.keys
    limit = T.Bind(T.max(state.limit, 0))
    head = task.first_head
    task.begin(state.query, head)
    if first is None:
        with T.serial(0, limit // BLOCK) as block:
            keys.select(block)
            with T.serial(0, a.group) as g:
                whole_block(a, keys, state, g)
        rest = T.Bind(limit % BLOCK)
        with T.If(rest > 0), T.Then():
            keys.select(limit // BLOCK)
            with T.serial(0, a.group) as g:
                part_of_a_block(a, keys, state, g, 0, rest)
    else:
        first = T.Bind(T.max(first, 0))
        with T.If(limit > first), T.Then():
            for _block, low, high in _blocks(first, limit):
                keys.select(_block)
                task.block(keys, low, high)
    task.finish(head)


def _blocks(first: Any, end: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Loop over blocks: number, and what of it lies from ``first`` to ``end`` (exclusive)."""
    start = T.Bind(first // BLOCK)
    with T.serial(0, (end + BLOCK - 1) // BLOCK - start) as index:
        block = T.Bind(start + index)
        low = T.Bind(T.max(first - block * BLOCK, 0))
        yield block, low, T.Bind(T.min(end - block * BLOCK, BLOCK))


@dataclass(frozen=True)
class _Span:
    """Consecutive places in pages or rows: ``first`` to ``end`` (exclusive).

    The key at place ``p`` has the position ``p + shift`` in its sequence.
    """

    first: Any
    end: Any
    shift: Any


def _attend_turned(task: _Task, turns: Turns, spans: Iterable[_Span]) -> None:
    """Attend to the keys of some spans, which are rotated here, as is the query."""
    state, keys = task.state, task.keys
    position = task.given.positions[task.row]
    head = task.first_head
    task.begin(state.source, head)
    for span in spans:
        with T.If(span.end > span.first), T.Then():
            turns.query(state, position - (span.first // BLOCK * BLOCK + span.shift))
            for block, low, high in _blocks(span.first, span.end):
                keys.select(block)
                task.block(turns.keys(keys, state, low, high), low, high)
                turns.next_block(state)
    task.finish(head)
