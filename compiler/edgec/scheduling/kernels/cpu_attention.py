"""Attention over a paged or a ragged KV cache on CPUs, with the interface of TVM's kernels.

One task handles one token and one key-value head with all query heads that share it. Keys pass in
blocks of one page: 16 dot products at a time, then an online softmax in base 2
(https://arxiv.org/abs/1805.02867), then the block's values weighted by it. A block is read once for
all query heads of the group and stays in the L1 cache for them.

They replace TVM's own CPU kernels, which compute one product at a time on one thread and, in paged
prefill, walk over the whole capacity of the cache for every token. Only rotary mode 0 is computed
here: keys are rotated when they are appended and queries before they get here, which is how the
cache's constructor is called. All sums are float32.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels import HAND_WRITTEN
from edgec.scheduling.kernels.vectors import (
    Row,
    Vectors,
    as_float,
    broadcast,
    exp2,
    ramp,
    vector,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 16
"""Keys of a block; a page holds as many."""
NOTHING = -5e4
"""TVM's log-sum-exp of a token that attends to nothing; also below every score."""
_LOG2_E = math.log2(math.e)


@dataclass(frozen=True)
class Attention:
    """The parameters that the kernels share.

    Attributes:
        heads: query heads.
        kv_heads: key-value heads; divides ``heads``.
        head_dim: size of a head.
        dtype: of queries, keys, values and results.
        vector_bits: width of the registers to use.
    """

    heads: int
    kv_heads: int
    head_dim: int
    dtype: str
    vector_bits: int

    @property
    def lanes(self) -> int:
        """Lanes of the vectors: the most that divide a head evenly."""
        lanes = self.vector_bits // 32
        while self.head_dim % lanes:
            lanes //= 2
        return lanes

    @property
    def group(self) -> int:
        """Query heads that share a key-value head."""
        return self.heads // self.kv_heads


def paged_decode(a: Attention) -> Any:
    """One new token per sequence against its pages; all of them are visible to it."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            _named("batch_decode_paged_kv_cpu")
            batch = T.int32()
            q = _tensor("q", (batch, a.heads, a.head_dim), a.dtype)
            pages = _PagedArguments(a, batch)
            _indices("k_rope_pos_offset", batch)
            _indices("q_rope_position", batch)
            out, lse = _results(a, batch)
            scale = _scalars(causal=False)["sm_scale"]
            with _tasks(a, batch) as (row, kv_head, state):
                state.limit = pages.length(row)
                keys = _Paged(a, pages, row, kv_head)
                _attend(a, q, out, lse, row, kv_head, keys, state, scale)
        return builder.get()


def paged_prefill(a: Attention) -> Any:
    """New tokens of several sequences, end to end, against the pages of their sequence."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            _named("batch_prefill_paged_kv_cpu")
            batch, total = T.int32(), T.int32()
            q = _tensor("q", (total, a.heads, a.head_dim), a.dtype)
            q_indptr = _indices("q_indptr", batch + 1)
            pages = _PagedArguments(a, batch)
            _indices("k_rope_pos_offset", batch)
            _indices("q_rope_position", total)
            out, lse = _results(a, total)
            scalars = _scalars(causal=True)
            with _tasks(a, total) as (row, kv_head, state):
                sequence = _sequence_of(row, q_indptr, batch)
                length = pages.length(sequence)
                state.limit = _visible(scalars["causal"], length, q_indptr, sequence, row)
                keys = _Paged(a, pages, sequence, kv_head)
                _attend(a, q, out, lse, row, kv_head, keys, state, scalars["sm_scale"])
        return builder.get()


def ragged_prefill(a: Attention) -> Any:
    """New tokens of several sequences against the new keys of their sequence, not in pages yet."""
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            _named("batch_prefill_ragged_kv")
            batch, rows, key_rows = T.int32(), T.int32(), T.int32()
            q = _tensor("q", (rows, a.heads, a.head_dim), a.dtype)
            q_indptr = _indices("q_indptr", batch + 1)
            k = _tensor("k", (key_rows, a.kv_heads, a.head_dim), a.dtype)
            v = _tensor("v", (key_rows, a.kv_heads, a.head_dim), a.dtype)
            kv_indptr = _indices("kv_indptr", batch + 1)
            _indices("q_rope_position", rows)
            _indices("k_rope_pos_offset", batch)
            out, lse = _results(a, rows)
            scalars = _scalars(causal=True)
            with _tasks(a, rows) as (row, kv_head, state):
                sequence = _sequence_of(row, q_indptr, batch)
                length = kv_indptr[sequence + 1] - kv_indptr[sequence]
                state.limit = _visible(scalars["causal"], length, q_indptr, sequence, row)
                keys = _Ragged(a, k, v, kv_indptr, sequence, kv_head)
                _attend(a, q, out, lse, row, kv_head, keys, state, scalars["sm_scale"])
        return builder.get()


def _named(symbol: str) -> None:
    T.func_attr({"global_symbol": symbol, "tirx.is_scheduled": True, HAND_WRITTEN: True})


def _tensor(name: str, shape: tuple[Any, ...], dtype: str) -> Any:
    return T.match_buffer(T.arg(f"{name}_handle", T.handle()), shape, dtype)


def _indices(name: str, length: Any) -> Any:
    """A vector of int32 that may begin inside a larger one."""
    handle = T.arg(f"{name}_handle", T.handle())
    return T.match_buffer(handle, (length,), "int32", elem_offset=T.int32())


class _PagedArguments:
    """The arguments that describe pages and which of them each sequence has."""

    def __init__(self, a: Attention, batch: Any) -> None:
        shape = (T.int32(), 2, a.kv_heads, BLOCK, a.head_dim)
        self.pages = _tensor("pages", shape, a.dtype)
        self.indptr = _indices("page_indptr", batch + 1)
        self.values = _indices("page_values", T.int32())
        self.last_page = _indices("length_info", batch)

    def length(self, sequence: Any) -> Any:
        """Keys of a sequence."""
        count = self.indptr[sequence + 1] - self.indptr[sequence]
        return T.if_then_else(count > 0, (count - 1) * BLOCK + self.last_page[sequence], 0)


def _results(a: Attention, rows: Any) -> tuple[Any, Any]:
    """Output and log-sum-exp."""
    out = _tensor("output", (rows, a.heads, a.head_dim), a.dtype)
    return out, _tensor("lse", (rows, a.heads), "float32")


def _scalars(*, causal: bool) -> dict[str, Any]:
    """The trailing arguments; those of the rotary embedding are taken and not used."""
    names = [("causal", "int32")] if causal else []
    names += [
        ("rotary_mode", "int32"),
        ("rope_scale", "float32"),
        ("rope_theta", "float32"),
        ("sm_scale", "float32"),
    ]
    return {name: T.arg(name, getattr(T, dtype)()) for name, dtype in names}


@contextlib.contextmanager
def _tasks(a: Attention, rows: Any) -> Iterator[tuple[Any, Any, _State]]:
    """Loop over tokens and key-value heads, in parallel.

    Heads come first: late tokens see more keys than early ones, so that the tokens of one head
    make an even share for each thread.
    """
    with T.sblock("root"), T.parallel(0, a.kv_heads * rows) as task, T.sblock("task"):
        yield T.Bind(task % rows), T.Bind(task // rows), _State(a)


class _State:
    """What a task keeps while the blocks pass."""

    def __init__(self, a: Attention) -> None:
        local = {"dtype": "float32", "scope": "local"}
        self.limit: Any = None
        self.query = T.sblock_alloc_buffer((a.group, a.head_dim), **local)
        self.result = T.sblock_alloc_buffer((a.group, a.head_dim), **local)
        self.top = T.sblock_alloc_buffer((a.group,), **local)
        self.total = T.sblock_alloc_buffer((a.group,), **local)
        self.products = Vectors(BLOCK, a.lanes)
        self.product = Vectors(1, a.lanes)
        self.scores = Row(BLOCK)
        self.weights = Row(BLOCK)


class _Paged:
    """Keys and values of one sequence and head in pages."""

    def __init__(
        self, a: Attention, arguments: _PagedArguments, sequence: Any, kv_head: Any
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


def _sequence_of(row: Any, q_indptr: Any, batch: Any) -> Any:
    """The sequence whose tokens ``q_indptr[i]`` to ``q_indptr[i + 1]`` hold a row."""
    found = T.sblock_alloc_buffer((1,), "int32", scope="local")
    T.buffer_store(found, T.int32(0), [0])
    with T.serial(1, batch) as i, T.If(row >= q_indptr[i]), T.Then():
        T.buffer_store(found, i, [0])
    return T.Bind(found[0])


def _visible(causal: Any, length: Any, q_indptr: Any, sequence: Any, row: Any) -> Any:
    """How many keys a token sees: all, or with a causal mask those up to its own."""
    own = row - q_indptr[sequence]
    new = q_indptr[sequence + 1] - q_indptr[sequence]
    return T.if_then_else(causal > 0, length - new + own + 1, length)


def _attend(
    a: Attention,
    q: Any,
    out: Any,
    lse: Any,
    row: Any,
    kv_head: Any,
    keys: _Paged | _Ragged,
    state: _State,
    scale: Any,
) -> None:
    """One token's attention with all query heads of a group."""
    limit = T.Bind(T.max(state.limit, 0))
    first_head = T.Bind(kv_head * a.group)
    factor = broadcast(scale * T.float32(_LOG2_E), a.lanes)
    with T.serial(0, a.group) as g:
        T.buffer_store(state.top, T.float32(NOTHING), [g])
        T.buffer_store(state.total, T.float32(0), [g])
        for lane in _columns(a):
            value = as_float(q[row, first_head + g, lane], a.lanes)
            T.buffer_store(state.query, value * factor, [g, lane])
            T.buffer_store(state.result, broadcast(T.float32(0), a.lanes), [g, lane])
    with T.serial(0, limit // BLOCK) as block:
        keys.select(block)
        with T.serial(0, a.group) as g:
            _whole_block(a, keys, state, g)
    rest = T.Bind(limit % BLOCK)
    with T.If(rest > 0), T.Then():
        keys.select(limit // BLOCK)
        with T.serial(0, a.group) as g:
            _part_of_a_block(a, keys, state, g, rest)
    with T.serial(0, a.group) as g:
        _finish(a, out, lse, row, first_head + g, state, g)


def _columns(a: Attention) -> list[Any]:
    """Indices of the vectors that make up a head."""
    return [ramp(column, 1, a.lanes) for column in range(0, a.head_dim, a.lanes)]


def _whole_block(a: Attention, keys: _Paged | _Ragged, state: _State, g: Any) -> None:
    state.products.clear()
    for lane in _columns(a):
        query = state.query[g, lane]
        for key in range(BLOCK):
            state.products[key] = state.products[key] + query * keys.load(0, key, lane)
    for key, score in enumerate(state.products.sums()):
        state.scores[key] = score
    correction = _softmax_step(state, g)
    for lane in _columns(a):
        # Two chains of additions, since each waits for the one before.
        even = state.result[g, lane] * broadcast(correction, a.lanes)
        odd = broadcast(T.float32(0), a.lanes)
        for key in range(0, BLOCK, 2):
            first, second = state.weights[key], state.weights[key + 1]
            even = even + broadcast(first, a.lanes) * keys.load(1, key, lane)
            odd = odd + broadcast(second, a.lanes) * keys.load(1, key + 1, lane)
        T.buffer_store(state.result, even + odd, [g, lane])


def _part_of_a_block(
    a: Attention, keys: _Paged | _Ragged, state: _State, g: Any, count: Any
) -> None:
    state.scores.store(broadcast(T.float32(NOTHING), BLOCK))
    with T.serial(0, count) as key:
        state.product.clear()
        for lane in _columns(a):
            state.product[0] = state.product[0] + state.query[g, lane] * keys.load(0, key, lane)
        state.scores[key] = state.product.sums()[0]
    correction = _softmax_step(state, g)
    for lane in _columns(a):
        scaled = state.result[g, lane] * broadcast(correction, a.lanes)
        T.buffer_store(state.result, scaled, [g, lane])
        # What lies behind the last key may be anything, so it is not even multiplied by 0.
        with T.serial(0, count) as key:
            weight = broadcast(state.weights[key], a.lanes)
            added = state.result[g, lane] + weight * keys.load(1, key, lane)
            T.buffer_store(state.result, added, [g, lane])


def _finish(a: Attention, out: Any, lse: Any, row: Any, head: Any, state: _State, g: Any) -> None:
    total = T.Bind(state.total[g])
    seen = total > T.float32(0)
    inverse = T.Bind(T.if_then_else(seen, T.float32(1) / total, T.float32(0)))
    for lane in _columns(a):
        value = state.result[g, lane] * broadcast(inverse, a.lanes)
        T.buffer_store(out, T.Cast(vector(a.dtype, a.lanes), value), [row, head, lane])
    logarithm = T.if_then_else(seen, state.top[g] + T.log2(total), T.float32(NOTHING))
    T.buffer_store(lse, logarithm, [row, head])


def _softmax_step(state: _State, g: Any) -> Any:
    """Turn the block's scores into weights; gives the factor for all that came before."""
    before = T.Bind(state.top[g])
    top = T.Bind(T.max(before, state.scores.reduce(T.max)))
    state.weights.store(exp2(state.scores.load() - broadcast(top, BLOCK), BLOCK))
    correction = exp2(before - top, 1)
    total = state.total[g] * correction + state.weights.reduce(_add)
    T.buffer_store(state.total, total, [g])
    T.buffer_store(state.top, top, [g])
    return correction


def _add(left: Any, right: Any) -> Any:
    return left + right
