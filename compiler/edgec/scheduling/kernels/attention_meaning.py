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
    from collections.abc import Callable

    Given = DecodeArguments | PagedPrefillArguments | RaggedPrefillArguments
    Load = Callable[[int, Any, Any, Any, Any], Any]


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
                _attention(a, given, sequence, row, head)
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


def _element(given: Given, which: int, sequence: Any, key: Any, head: Any, feature: Any) -> Any:
    """A feature of a key (``which`` 0) or value (1)."""
    if isinstance(given, RaggedPrefillArguments):
        return (given.v if which else given.k)[given.kv_indptr[sequence] + key, head, feature]
    pages = given.pages
    page = pages.values[pages.indptr[sequence] + key // PAGE_SIZE]
    return pages.pages[page, which, head, key % PAGE_SIZE, feature]


def _attention(a: Heads, given: Given, sequence: Any, row: Any, head: Any) -> None:
    """One token's output and log-sum-exp with one query head."""
    state = {"dtype": "float32", "scope": "local"}
    best = T.sblock_alloc_buffer((1,), **state)
    total = T.sblock_alloc_buffer((1,), **state)
    score = T.sblock_alloc_buffer((1,), **state)
    result = T.sblock_alloc_buffer((a.head_dim,), **state)
    length = T.Bind(_length(given, sequence))
    kv_head = T.Bind(head // a.group)
    scale = given.scalars["sm_scale"]

    def compute_score(key: Any) -> None:
        T.buffer_store(score, T.float32(0), [0])
        with T.serial(0, a.head_dim) as feature:
            q = T.Cast("float32", given.q[row, head, feature])
            k = T.Cast("float32", _element(given, 0, sequence, key, kv_head, feature))
            T.buffer_store(score, score[0] + q * k, [0])
        value = score[0] * (scale if a.window is None else T.abs(scale))
        if a.soft_cap is not None:
            value = T.float32(a.soft_cap) * T.tanh(value / T.float32(a.soft_cap))
        T.buffer_store(score, value, [0])

    def is_seen(key: Any) -> Any:
        distance = given.positions[row] - (given.offsets[sequence] + key)
        seen = T.bool(True)
        if not isinstance(given, DecodeArguments):
            after = given.q_indptr[sequence + 1] - 1 - row
            seen = (given.scalars["causal"] == 0) | (key < length - after)
        if a.window is not None:
            seen = seen & ((scale > T.float32(0)) | (distance < a.window))
        return seen

    T.buffer_store(best, T.float32(-math.inf), [0])
    T.buffer_store(total, T.float32(0), [0])
    with T.serial(0, a.head_dim) as feature:
        T.buffer_store(result, T.float32(0), [feature])
    with T.serial(0, length) as key, T.If(is_seen(key)), T.Then():
        compute_score(key)
        T.buffer_store(best, T.max(best[0], score[0]), [0])
    with T.serial(0, length) as key, T.If(is_seen(key)), T.Then():
        compute_score(key)
        T.buffer_store(score, T.exp(score[0] - best[0]), [0])
        T.buffer_store(total, total[0] + score[0], [0])
        with T.serial(0, a.head_dim) as feature:
            v = T.Cast("float32", _element(given, 1, sequence, key, kv_head, feature))
            T.buffer_store(result, result[feature] + score[0] * v, [feature])
    with T.If(total[0] > T.float32(0)):
        with T.Then():
            with T.serial(0, a.head_dim) as feature:
                value = T.Cast(a.dtype, result[feature] / total[0])
                T.buffer_store(given.out, value, [row, head, feature])
            logarithm = (best[0] + T.log(total[0])) * T.float32(1 / math.log(2))
            T.buffer_store(given.lse, logarithm, [row, head])
        with T.Else():
            with T.serial(0, a.head_dim) as feature:
                T.buffer_store(given.out, T.Cast(a.dtype, T.float32(0)), [row, head, feature])
            T.buffer_store(given.lse, T.float32(NOTHING), [row, head])
