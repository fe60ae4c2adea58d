"""Passes of a few tokens that give what the same tokens give one by one, bit for bit.

The runtime splits the attention of several tokens: one kernel sees the new keys, then another one
those in pages, and a third merges the two. For a single token it appends first and calls one kernel.
The sums have another order then, so that a guess checked beside others may be refused though it is what
the model says, or the other way round. So the first kernel leaves sequences of few tokens to the
second, which finds the tokens' own keys and values beside their queries, puts together the pages that
they will lie in, and does for each token what the kernel for single tokens does. The first one leaves
word in a note beside each query: 0, or the number of the sequence's first token and 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.cpu_attention_blocks import BLOCK, Paged, loaded, when
from edgec.scheduling.kernels.cpu_attention_parts import PART, Parts
from edgec.scheduling.kernels.cpu_attention_token import PAGES, Run
from edgec.scheduling.kernels.vectors import without_regions

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgec.scheduling.kernels.attention_arguments import (
        PagedPrefillArguments,
        RaggedPrefillArguments,
    )
    from edgec.scheduling.kernels.cpu_attention_blocks import Attention, Pages, Views
    from edgec.scheduling.kernels.cpu_attention_tile import Rows
    from edgec.scheduling.kernels.cpu_attention_token import Token

FEW = 16
"""Tokens of a sequence up to which they are left: more of them are a prompt, and faster in tiles."""
_MOST = 64
"""Tokens of a pass up to which some are left: there is room for that many."""
_SPLIT = 1 + -(-(FEW - 1) // BLOCK)
"""Pages at most that hold some of them."""


def leave(a: Attention, given: RaggedPrefillArguments, views: Views, inline: Any) -> None:
    """Note of each token whether it is left.

    None is where keys are rotated when they are read, or where there is no cache.
    """
    if not a.cached:
        return
    with T.serial(0, given.batch) as sequence:
        first, end = (T.Bind(given.q_indptr[sequence + more]) for more in (0, 1))
        left = (end - first <= FEW) & (given.offsets[sequence] > 0) & (given.rows <= _MOST)
        note = T.Bind(T.if_then_else(left, first + 1, 0) * T.Cast("int32", T.Not(inline)))
        with T.serial(first, end) as row:
            a.format.write_note(views.q, row, note)


def taken(a: Attention, views: Views, rows: Rows) -> Any:
    """Whether all tokens of a tile are left."""
    if not a.cached:
        return T.bool(False)
    every = T.sblock_alloc_buffer((1,), "bool")
    T.buffer_store(every, T.bool(True), [0])
    first = T.Bind(rows.token + rows.first // a.group)
    last = T.Bind(rows.token + (rows.first + rows.count - 1) // a.group)
    with T.serial(first, last + 1) as row, when(a.format.read_note(views.q, row) == 0):
        T.buffer_store(every, T.bool(False), [0])
    return every[0]


class Left:
    """The tokens that were left to the kernel for pages.

    Args:
        a: the attention.
        given: the kernel's arguments.
        views: of its queries and results.
    """

    def __init__(self, a: Attention, given: PagedPrefillArguments, views: Views) -> None:
        self._a, self._given, self._views = a, given, views
        # Of each token: its sequence, keys it sees, and the first of its sequence's new tokens.
        self._sequence, self._seen, self._first = (
            T.sblock_alloc_buffer((given.rows,), "int32") for _ in range(3)
        )
        self._some = T.sblock_alloc_buffer((1,), "bool")

    def attend(self) -> None:
        """Do what the kernel for single tokens does, for each of them."""
        a, given, views = self._a, self._given, self._views
        T.buffer_store(self._some, T.bool(False), [0])
        with T.serial(0, given.batch) as sequence:
            self._look(sequence)
        with when(self._some[0]), T.sblock("left"):
            without_regions()
            of_one = (given.pages.values.shape[0] + _SPLIT) // PART + 1
            most = T.min(given.rows, _MOST) * of_one
            parts = Parts(a, given.rows, self._pages_of, most, self._is_left)
            with parts.each() as (row, kv_head, pages, token):
                token.begin(views.q, token.query, row, kv_head * a.group, given.scale)
                self._attend(token, row, kv_head, pages)
            parts.finish(views.out, given.lse)

    def _attend(self, token: Token, row: Any, kv_head: Any, pages: tuple[Any, Any]) -> None:
        """Take in what a token sees in some pages."""
        a, given = self._a, self._given
        sequence, seen = T.Bind(self._sequence[row]), T.Bind(self._seen[row])
        length = T.Bind(given.pages.length(sequence))
        paged = Paged(a, given.pages, sequence, kv_head)
        new = T.Bind(self._first[row])
        keys = _Together(a, paged, length, self._views.q, new, kv_head, seen)
        first = given.first(row, sequence)
        first = T.int32(0) if first is None else T.Bind(T.max(first, 0))
        token.attend(Run(first, seen, pages), keys)

    def _look(self, sequence: Any) -> None:
        a, given = self._a, self._given
        length = T.Bind(given.pages.length(sequence))
        end = T.Bind(given.offsets[sequence] + length)
        with T.serial(given.q_indptr[sequence], given.q_indptr[sequence + 1]) as row:
            note = T.Bind(a.format.read_note(self._views.q, row))
            T.buffer_store(self._sequence, sequence, [row])
            T.buffer_store(self._first, note - 1, [row])
            T.buffer_store(self._seen, T.int32(-1), [row])
            with when(note > 0):
                # Sequences that share their first pages have those of each in a call of its own, and new
                # tokens come after the last ones.
                last = (length > 0) & (given.positions[note - 1] == end)
                seen = T.Bind(length + T.if_then_else(last, row - note + 2, 0))
                T.buffer_store(self._seen, seen, [row])
                T.buffer_store(self._some, T.bool(True), [0])

    def _pages_of(self, row: Any) -> Any:
        return (T.max(self._seen[row], 0) + BLOCK - 1) // BLOCK

    def _is_left(self, row: Any) -> Any:
        return self._seen[row] >= 0


class _Together:
    """Keys and values of a sequence and some heads, first those in pages, then those of new tokens.

    Pages are copied to where both come to lie in them. That costs little beside what follows, and so the
    steps that follow stand in the kernel once.

    Args:
        a: the attention.
        paged: those in pages.
        length: how many those are.
        q: with the rows of new tokens, from ``first`` on.
        first: see there.
        kv_head: the first of the heads.
        seen: after the last key that is looked at.
    """

    def __init__(
        self, a: Attention, paged: Paged, length: Any, q: Any, first: Any, kv_head: Any, seen: Any
    ) -> None:
        self._a, self._paged, self._length = a, paged, length
        self._q, self._first, self._kv_head, self._seen = q, first, kv_head, seen
        self._rows = T.sblock_alloc_buffer((PAGES, 2, a.together, BLOCK, a.format.row), a.dtype)

    def at(self, block: Any, use: Callable[[Pages], None]) -> None:
        """Read a block for the first time."""
        fmt, length = self._a.format, self._length
        slot, keys = T.Bind(block % PAGES), T.min(self._seen - block * BLOCK, BLOCK)
        with T.serial(0, self._a.together) as head, T.serial(0, keys) as within:
            key = T.Bind(block * BLOCK + within)
            for which in (0, 1):
                place = (slot, which, head, within, 0)
                with T.If(key < length):
                    with T.Then():
                        self._paged.of(head).copy(block, which, within, self._rows, place)
                    with T.Else():
                        own = (self._first + key - length, fmt.own(which, self._kv_head + head))
                        fmt.copy(self._rows, place, self._q, own)
        use(_Filled(self._a, self._rows, (slot,)))

    def again(self, block: Any, use: Callable[[Pages], None]) -> None:
        """Read one of the last blocks once more."""
        use(_Filled(self._a, self._rows, (T.Bind(block % PAGES),)))


class _Filled:
    """Pages that were put together; ``place`` is their slot, and of one of them also its head."""

    def __init__(self, a: Attention, rows: Any, place: tuple[Any, ...]) -> None:
        self._a, self._rows, self._place = a, rows, place

    def of(self, head: Any) -> _Filled:
        """The page of one of the heads."""
        return _Filled(self._a, self._rows, (*self._place, head))

    def load(self, which: int, key: Any, lane: Any) -> Any:
        """A float32 vector of key (``which`` 0) or value (1) number ``key`` of the block."""
        slot, head = self._place
        return loaded(self._a, self._rows, (slot, which, head, key, 0), lane)

    def prefetch(self, which: int, key: Any, block: Any = None) -> None:
        """Nothing: it was just written."""
