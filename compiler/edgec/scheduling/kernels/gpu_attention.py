"""Attention over a paged or a ragged KV cache on GPUs without sub-groups, with the interface of TVM's kernels.

A work-group computes a tile of rows, a row being a token with one of the query heads that share a
key-value head. Keys pass in blocks: the tile's scores are made in registers, as in a product of two
matrices, straight from the cache; lanes tell each other their maxima for an online softmax in base 2
(https://arxiv.org/abs/1805.02867, https://arxiv.org/abs/2205.14135), then the weights; and each lane
adds up its part of the weighted values. That takes two barriers a block: TVM's kernels copy queries,
keys and values to shared memory first, which costs browsers more than it brings, and compute blocks of
which a causal mask leaves nothing.

A cache without sliding windows has rotary mode 0: keys are rotated when they are appended and
queries before they get here. With sliding windows it has mode 1, and the kernel for tokens that
aren't in pages yet rotates what it reads; those for pages are then others, TVM's. All sums are
float32, in an order that depends on nothing but shapes.

Scores may have a soft cap, and in some layers tokens may see the latest keys only: blocks that none
of a tile's rows sees are passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.models.kv_cache import PAGE_SIZE
from edgec.scheduling.kernels.attention_arguments import (
    DecodeArguments,
    Heads,
    PagedArguments,
    PagedPrefillArguments,
    RaggedPrefillArguments,
    flag,
    named,
    visible,
)
from edgec.scheduling.kernels.gpu_attention_tile import LANES, Attention, Keys, Rows, Tile
from edgec.scheduling.kernels.gpu_turns import Turns
from edgec.scheduling.kernels.gpu_work_group import keep, launch, registers

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgec.models.rope import Rope

_NO_ALIAS = {"tirx.noalias": True}
_NO_KEY = 2**30
_SHIFT = PAGE_SIZE.bit_length() - 1


def paged_decode(a: Heads) -> Any:
    """One new token per sequence against its pages; all of them are visible to it."""
    tile = Tile.of_one_token(a)
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named("batch_decode_paged_kv", _NO_ALIAS)
            given = DecodeArguments(a)
            parts = -(-a.group // tile.rows)
            with launch(LANES, given.batch * parts, a.kv_heads) as (lane, index, kv_head):
                sequence = keep(T.truncdiv(index, parts))
                first = keep(T.truncmod(index, parts) * tile.rows)
                rows = Rows(
                    token=lambda _row: sequence,
                    head=lambda row: kv_head * a.group + T.min(first + row, a.group - 1),
                    exists=lambda row: first + row < a.group,
                )
                attention = Attention(a, tile, lane, rows, given)
                length = keep(given.pages.length(sequence))
                attention.limits[0] = length
                seen = given.first(sequence, sequence)
                if seen is not None:
                    attention.firsts[0] = seen
                    seen = attention.firsts[0]
                keys = _Paged(a, given.pages, sequence, kv_head)
                attention.attend(keys, length, length, seen)
                attention.finish()
        return builder.get()


def paged_prefill(a: Heads) -> Any:
    """New tokens of several sequences, end to end, against the pages of their sequence."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named("batch_prefill_paged_kv", _NO_ALIAS)
            given = PagedPrefillArguments(a)
            _prefill(
                a,
                given,
                lambda sequence, kv_head: _Paged(a, given.pages, sequence, kv_head),
            )
        return builder.get()


def ragged_prefill(a: Heads, rope: Rope | None = None) -> Any:
    """New tokens of several sequences against the new keys of their sequence, not in pages yet.

    Args:
        a: the heads.
        rope: what rotary mode 1 means; None if the cache never has it.
    """
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named("batch_prefill_ragged_kv", _NO_ALIAS)
            given = RaggedPrefillArguments(a)
            inline = given.scalars["rotary_mode"] == 1
            _prefill(
                a,
                given,
                lambda sequence, kv_head: _Ragged(
                    (given.k, given.v), given.kv_indptr[sequence], kv_head
                ),
                None if rope is None else Turns(rope, inline, given.positions, given.offsets),
            )
        return builder.get()


class _Paged:
    """Keys in pages; a place is ``page * 16 + slot``."""

    def __init__(self, a: Heads, pages: PagedArguments, sequence: Any, kv_head: Any) -> None:
        self._heads = a
        self._pages = pages
        self._first = keep(pages.indptr[sequence])
        self._kv_head = kv_head

    def place(self, key: Any) -> Any:
        page = self._pages.values[self._first + T.shift_right(key, _SHIFT)]
        return keep(page * PAGE_SIZE + T.bitwise_and(key, PAGE_SIZE - 1))

    def load(self, which: int, place: Any, feature: Any) -> Any:
        page, slot = T.shift_right(place, _SHIFT), T.bitwise_and(place, PAGE_SIZE - 1)
        return T.Cast("float32", self._pages.pages[page, which, self._kv_head, slot, feature])


class _Ragged:
    """Keys in the order of their tokens; a place is a row."""

    def __init__(self, arrays: tuple[Any, Any], first: Any, kv_head: Any) -> None:
        self._arrays = arrays
        self._first = keep(first)
        self._kv_head = kv_head

    def place(self, key: Any) -> Any:
        return keep(self._first + key)

    def load(self, which: int, place: Any, feature: Any) -> Any:
        return T.Cast("float32", self._arrays[which][place, self._kv_head, feature])


def _prefill(
    a: Heads,
    given: PagedPrefillArguments | RaggedPrefillArguments,
    keys_of: Callable[[Any, Any], Keys],
    turns: Turns | None = None,
) -> None:
    """Rows are numbered through all tokens, so that a tile may have rows of several sequences."""
    tile = Tile.of_tokens(a)
    total, causal, q_indptr = given.rows, given.scalars["causal"], given.q_indptr
    tiles = T.ceildiv(total * a.group, tile.rows)
    with launch(LANES, tiles, a.kv_heads) as (lane, index, kv_head):
        first = keep(index * tile.rows)
        last = keep(T.min(first + tile.rows, total * a.group) - 1)

        def token(row: Any) -> Any:
            return T.truncdiv(T.min(first + row, last), a.group)

        rows = Rows(
            token=token,
            head=lambda row: kv_head * a.group + T.truncmod(T.min(first + row, last), a.group),
            exists=lambda row: first + row <= last,
        )
        attention = Attention(a, tile, lane, rows, given, turns)
        first_token, last_token = keep(token(T.int32(0))), keep(token(T.int32(tile.rows - 1)))
        own = [keep(token(row)) for row in attention.own]
        with T.serial(0, given.batch) as sequence:
            begin, end = keep(q_indptr[sequence]), keep(q_indptr[sequence + 1])
            length = keep(given.length(sequence))
            for i, row in enumerate(own):
                seen = visible(causal, length, q_indptr, sequence, row)
                attention.limits[i] = seen * flag(row >= begin) * flag(row < end)
            # Barriers are in a loop without passes where a condition around them isn't allowed.
            seen = visible(causal, length, q_indptr, sequence, T.min(last_token, end - 1))
            bound = keep(seen * flag(begin <= last_token) * flag(end > first_token))
            if turns is not None:
                attention.first_position = keep(turns.keys[sequence])
            start = None
            if a.window is not None:
                for i, row in enumerate(own):
                    attention.firsts[i] = given.first(row, sequence)
                start = _earliest(given, sequence, (first_token, last_token), (begin, end))
            attention.attend(keys_of(sequence, kv_head), length, bound, start)
        attention.finish()


def _earliest(
    given: PagedPrefillArguments | RaggedPrefillArguments,
    sequence: Any,
    tile: tuple[Any, Any],
    tokens: tuple[Any, Any],
) -> Any:
    """The first key that any of a tile's tokens of a sequence sees; the same in all lanes.

    Sequences that were forked share the pages of what they have in common: there the cache takes
    them for one sequence, whose tokens have no order.
    """
    low = keep(T.max(tile[0], tokens[0]))
    high = T.min(tile[1], tokens[1] - 1)
    found = registers(1, "int32")
    found[0] = T.int32(_NO_KEY)
    with T.serial(0, T.max(high - low + 1, 0)) as index:
        found[0] = T.min(found[0], given.first(low + index, sequence))
    return found[0]
