"""What attention on CPUs does with one block of keys, for all query heads of a group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tvm.tirx.script import builder as T

from edgec.models.kv_cache import PAGE_SIZE
from edgec.scheduling.kernels.attention_arguments import LOG2_E, NOTHING, Heads
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
    from edgec.models.rope import Rope

BLOCK = PAGE_SIZE
"""Keys of a block: a page's."""


@dataclass(frozen=True)
class Attention(Heads):
    """The parameters that the kernels share.

    Attributes:
        vector_bits: width of the registers to use.
        rope: the rotary embedding, for kernels that rotate keys when they read them; None for
            those that find keys rotated.
    """

    vector_bits: int
    rope: Rope | None = None

    @property
    def lanes(self) -> int:
        """Lanes of the vectors: the most that divide a head evenly, or the halves it turns in."""
        lanes = self.vector_bits // 32
        while (self.head_dim if self.rope is None else self.head_dim // 2) % lanes:
            lanes //= 2
        return lanes


class State:
    """What a task keeps while the blocks pass.

    ``query`` is what keys are multiplied by. Where the kernel rotates, ``source`` is the query as
    it was projected, ``keys`` a block of rotated keys, and ``cosine`` and ``sine`` those of the
    query's angles.
    """

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
        if a.rope is not None:
            half = (a.head_dim // 2,)
            self.source = T.sblock_alloc_buffer((a.group, a.head_dim), **local)
            self.keys = T.sblock_alloc_buffer((BLOCK, a.head_dim), **local)
            self.cosine = T.sblock_alloc_buffer(half, **local)
            self.sine = T.sblock_alloc_buffer(half, **local)


class Keys(Protocol):
    """Keys and values of one sequence and head, a block at a time."""

    def load(self, which: int, key: Any, lane: Any) -> Any:
        """A float32 vector of key (``which`` 0) or value (1) number ``key`` of the block."""


def begin(a: Attention, state: State, q: Any, into: Any, row: Any, head: Any, scale: Any) -> None:
    """Nothing seen yet; the queries of ``head`` and those after it, scaled, go into a buffer.

    Products with them are scores in base 2, or with a soft cap what :func:`_capped` takes.
    """
    base = LOG2_E if a.soft_cap is None else 2 * LOG2_E / a.soft_cap
    factor = broadcast(scale * T.float32(base), a.lanes)
    with T.serial(0, a.group) as g:
        T.buffer_store(state.top, T.float32(NOTHING), [g])
        T.buffer_store(state.total, T.float32(0), [g])
        for lane in columns(a):
            value = as_float(q[row, head + g, lane], a.lanes)
            T.buffer_store(into, value * factor, [g, lane])
            T.buffer_store(state.result, broadcast(T.float32(0), a.lanes), [g, lane])


def columns(a: Attention) -> list[Any]:
    """Indices of the vectors that make up a head."""
    return [ramp(column, 1, a.lanes) for column in range(0, a.head_dim, a.lanes)]


def whole_block(a: Attention, keys: Keys, state: State, g: Any) -> None:
    """Add a block of 16 keys to what query head ``g`` of the group has seen."""
    state.products.clear()
    for lane in columns(a):
        query = state.query[g, lane]
        for key in range(BLOCK):
            state.products[key] = state.products[key] + query * keys.load(0, key, lane)
    for key, score in enumerate(state.products.sums()):
        state.scores[key] = score
    if a.soft_cap is not None:
        state.scores.store(_capped(a.soft_cap, state.scores.load(), BLOCK))
    correction = _softmax_step(state, g)
    for lane in columns(a):
        # Two chains of additions, since each waits for the one before.
        even = state.result[g, lane] * broadcast(correction, a.lanes)
        odd = broadcast(T.float32(0), a.lanes)
        for key in range(0, BLOCK, 2):
            first, second = state.weights[key], state.weights[key + 1]
            even = even + broadcast(first, a.lanes) * keys.load(1, key, lane)
            odd = odd + broadcast(second, a.lanes) * keys.load(1, key + 1, lane)
        T.buffer_store(state.result, even + odd, [g, lane])


def part_of_a_block(a: Attention, keys: Keys, state: State, g: Any, first: Any, end: Any) -> None:
    """The same with the keys ``first`` to ``end`` (exclusive) of a block."""
    state.scores.store(broadcast(T.float32(NOTHING), BLOCK))
    with T.serial(first, end) as key:
        state.product.clear()
        for lane in columns(a):
            state.product[0] = state.product[0] + state.query[g, lane] * keys.load(0, key, lane)
        score = state.product.sums()[0]
        state.scores[key] = score if a.soft_cap is None else _capped(a.soft_cap, score, 1)
    correction = _softmax_step(state, g)
    for lane in columns(a):
        scaled = state.result[g, lane] * broadcast(correction, a.lanes)
        T.buffer_store(state.result, scaled, [g, lane])
        # What lies beside these keys may be anything, so it is not even multiplied by 0.
        with T.serial(first, end) as key:
            weight = broadcast(state.weights[key], a.lanes)
            added = state.result[g, lane] + weight * keys.load(1, key, lane)
            T.buffer_store(state.result, added, [g, lane])


def finish(a: Attention, out: Any, lse: Any, row: Any, head: Any, state: State, g: Any) -> None:
    """Write the result and log-sum-exp of query head ``g`` of the group, ``head`` of all."""
    total = T.Bind(state.total[g])
    seen = total > T.float32(0)
    inverse = T.Bind(T.if_then_else(seen, T.float32(1) / total, T.float32(0)))
    for lane in columns(a):
        value = state.result[g, lane] * broadcast(inverse, a.lanes)
        T.buffer_store(out, T.Cast(vector(a.dtype, a.lanes), value), [row, head, lane])
    logarithm = T.if_then_else(seen, state.top[g] + T.log2(total), T.float32(NOTHING))
    T.buffer_store(lse, logarithm, [row, head])


def _capped(cap: float, x: Any, lanes: int) -> Any:
    """``cap * tanh(x / (2 * log2(e)))`` in base 2, as ``1 - 2 / (1 + 2**x)``.

    From 64 on that is 1 in float32, and below -126 it is -1.
    """
    one, two = (broadcast(T.float32(value), lanes) for value in (1, 2))
    power = exp2(T.min(x, broadcast(T.float32(64), lanes)), lanes)
    return broadcast(T.float32(cap * LOG2_E), lanes) * (one - two / (one + power))


def _softmax_step(state: State, g: Any) -> Any:
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
