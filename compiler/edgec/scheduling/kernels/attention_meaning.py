"""What attention with soft caps and windows means, in loops: the reference of the kernels for GPUs.

TVM's own kernels know neither. These walk over the keys of a token twice, first for the largest
score and then for the weighted sum, with the exponential and the hyperbolic tangent of the C library,
and share nothing with our kernels but the declaration of arguments.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.models.kv_cache import PAGE_SIZE
from edgec.scheduling.kernels.attention_arguments import (
    NOTHING,
    DecodeArguments,
    Heads,
    PagedPrefillArguments,
    RaggedPrefillArguments,
    named,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Given = DecodeArguments | PagedPrefillArguments | RaggedPrefillArguments


def attention_meanings(a: Heads) -> dict[str, Any]:
    """The kernels of a cache that know caps and windows, by their names on GPUs."""
    return {
        name: _kernel(a, name, arguments)
        for name, arguments in (
            ("batch_decode_paged_kv", DecodeArguments),
            ("batch_prefill_paged_kv", PagedPrefillArguments),
            ("batch_prefill_ragged_kv", RaggedPrefillArguments),
        )
    }


def _kernel(a: Heads, name: str, arguments: Callable[[Heads], Given]) -> Any:
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            named(name)
            given = arguments(a)
            with (
                T.sblock("root"),
                T.serial(0, given.batch) as sequence,
                T.serial(*_tokens(given, sequence)) as row,
                T.serial(0, a.heads) as head,
                T.sblock("attention"),
            ):
                token = _Token(a, given, sequence, row, head)
                token.look()
                token.attend()
                token.write()
        return builder.get()


def _tokens(given: Given, sequence: Any) -> tuple[Any, Any]:
    """A sequence's rows of queries."""
    if isinstance(given, DecodeArguments):
        return sequence, sequence + 1
    return given.q_indptr[sequence], given.q_indptr[sequence + 1]


def _length(given: Given, sequence: Any) -> Any:
    if isinstance(given, RaggedPrefillArguments):
        return given.kv_indptr[sequence + 1] - given.kv_indptr[sequence]
    pages = given.pages
    count = pages.indptr[sequence + 1] - pages.indptr[sequence]
    full = (count - 1) * PAGE_SIZE
    return T.if_then_else(count > 0, full + pages.last_page[sequence], 0)


class _Token:
    """One token with one query head, and what of its sequence has been seen."""

    def __init__(self, a: Heads, given: Given, sequence: Any, row: Any, head: Any) -> None:
        self._a, self._given = a, given
        self._sequence, self._row, self._head = sequence, row, head
        self._kv_head = T.Bind(head // a.group)
        self._length = T.Bind(_length(given, sequence))
        self._scale = given.scalars["sm_scale"]
        local = {"dtype": "float32", "scope": "local"}
        self._best = T.sblock_alloc_buffer((1,), **local)
        self._total = T.sblock_alloc_buffer((1,), **local)
        self._score = T.sblock_alloc_buffer((1,), **local)
        self._result = T.sblock_alloc_buffer((a.head_dim,), **local)
        T.buffer_store(self._best, T.float32(-math.inf), [0])
        T.buffer_store(self._total, T.float32(0), [0])
        for feature in self._features():
            T.buffer_store(self._result, T.float32(0), [feature])

    def look(self) -> None:
        """Walk over the keys that it sees for the largest score."""
        with T.serial(0, self._length) as key, T.If(self._sees(key)), T.Then():
            self._find_score(key)
            T.buffer_store(self._best, T.max(self._best[0], self._score[0]), [0])

    def attend(self) -> None:
        """Walk over them again for the weighted sum of values."""
        score, total, result = self._score, self._total, self._result
        with T.serial(0, self._length) as key, T.If(self._sees(key)), T.Then():
            self._find_score(key)
            T.buffer_store(score, T.exp(score[0] - self._best[0]), [0])
            T.buffer_store(total, total[0] + score[0], [0])
            for feature in self._features():
                v = self._element(1, key, feature)
                T.buffer_store(result, result[feature] + score[0] * v, [feature])

    def write(self) -> None:
        """Output and log-sum-exp; zeros and the lowest where it sees nothing."""
        place, dtype = (self._row, self._head), self._a.dtype
        total = self._total[0]
        with T.If(total > T.float32(0)):
            with T.Then():
                for feature in self._features():
                    value = T.Cast(dtype, self._result[feature] / total)
                    T.buffer_store(self._given.out, value, [*place, feature])
                logarithm = (self._best[0] + T.log(total)) * T.float32(1 / math.log(2))
                T.buffer_store(self._given.lse, logarithm, [*place])
            with T.Else():
                for feature in self._features():
                    T.buffer_store(self._given.out, T.Cast(dtype, T.float32(0)), [*place, feature])
                T.buffer_store(self._given.lse, T.float32(NOTHING), [*place])

    def _features(self) -> Iterator[Any]:
        """Loop over a head."""
        with T.serial(0, self._a.head_dim) as feature:
            yield feature

    def _find_score(self, key: Any) -> None:
        score, cap, scale = self._score, self._a.soft_cap, self._scale
        T.buffer_store(score, T.float32(0), [0])
        for feature in self._features():
            q = T.Cast("float32", self._given.q[self._row, self._head, feature])
            T.buffer_store(score, score[0] + q * self._element(0, key, feature), [0])
        value = score[0] * (scale if self._a.window is None else T.abs(scale))
        if cap is not None:
            value = T.float32(cap) * T.tanh(value / T.float32(cap))
        T.buffer_store(score, value, [0])

    def _element(self, which: int, key: Any, feature: Any) -> Any:
        """A feature of a key (``which`` 0) or value (1)."""
        given, sequence = self._given, self._sequence
        if isinstance(given, RaggedPrefillArguments):
            array, row = (given.k, given.v)[which], given.kv_indptr[sequence] + key
            return T.Cast("float32", array[row, self._kv_head, feature])
        pages = given.pages
        page = pages.values[pages.indptr[sequence] + key // PAGE_SIZE]
        place = page, which, self._kv_head, key % PAGE_SIZE, feature
        return T.Cast("float32", pages.pages[place])

    def _sees(self, key: Any) -> Any:
        given, window = self._given, self._a.window
        seen = T.bool(True)
        if not isinstance(given, DecodeArguments):
            after = given.q_indptr[self._sequence + 1] - 1 - self._row
            seen = (given.scalars["causal"] == 0) | (key < self._length - after)
        if window is not None:
            distance = given.positions[self._row] - (given.offsets[self._sequence] + key)
            seen = seen & ((self._scale > T.float32(0)) | (distance < window))
        return seen
