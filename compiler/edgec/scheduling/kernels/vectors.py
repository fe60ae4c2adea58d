"""Vectors in hand-written CPU kernels: loads, accumulators that stay in registers, functions.

TVM has no vectors of one lane, so every helper gives a scalar for one.
"""

from __future__ import annotations

import math
from typing import Any

from tvm.tirx.script import builder as T


def ramp(first: Any, stride: int, lanes: int) -> Any:
    """Indices ``first, first + stride, ...``."""
    return T.ramp(first, stride, lanes) if lanes > 1 else first


def broadcast(value: Any, lanes: int) -> Any:
    """A vector of equal lanes."""
    return T.broadcast(value, lanes) if lanes > 1 else value


def vector(dtype: str, lanes: int) -> str:
    """TVM's name of a vector type."""
    return f"{dtype}x{lanes}" if lanes > 1 else dtype


def as_float(value: Any, lanes: int) -> Any:
    """A vector of numbers as float32."""
    return T.Cast(vector("float32", lanes), value)


def fused(a: Any, b: Any, c: Any, lanes: int) -> Any:
    """``a * b + c``, rounded once.

    Compilers fuse a product and a sum where they meet, and where they meet depends on what is around: two
    kernels made of the same steps may differ by a bit then. Those that must not say it.
    """
    return T.call_llvm_intrin(vector("float32", lanes), "llvm.fma", a, b, c)


def without_regions() -> None:
    """Say that a block touches nothing, so that nobody works out what it touches.

    That takes seconds in large kernels, and is of use to rules only, which leave kernels made by hand
    alone.
    """
    T.reads()
    T.writes()


class Vectors:
    """Accumulators, which the compiler keeps in registers.

    Each is a buffer of its own: from 1024 bytes on, or with another scope than the default one, TVM takes
    a buffer from the heap, and then every change of an accumulator is a store.
    """

    def __init__(self, count: int, lanes: int, dtype: str = "float32") -> None:
        self._count = count
        self._lanes = lanes
        self._dtype = dtype
        self._vectors = [_local(lanes, dtype) for _ in range(count)]

    def __getitem__(self, index: int) -> Any:
        return self._vectors[index][ramp(0, 1, self._lanes)]

    def __setitem__(self, index: int, value: Any) -> None:
        T.buffer_store(self._vectors[index], value, [ramp(0, 1, self._lanes)])

    def clear(self) -> None:
        """Set every accumulator to zero."""
        for index in range(self._count):
            self[index] = broadcast(T.Cast(self._dtype, 0), self._lanes)

    def sums(self) -> list[Any]:
        """Each accumulator's sum over its lanes, halving the vector at every step."""
        sums = [_local(self._lanes, self._dtype) for _ in range(self._count)]
        for index in range(self._count):
            T.buffer_store(sums[index], self[index], [ramp(0, 1, self._lanes)])
        half = self._lanes // 2
        while half:
            for row in sums:
                low, high = row[ramp(0, 1, half)], row[ramp(half, 1, half)]
                T.buffer_store(row, low + high, [ramp(0, 1, half)])
            half //= 2
        return [row[0] for row in sums]


def _local(lanes: int, dtype: str) -> Any:
    return T.sblock_alloc_buffer((lanes,), dtype)


class Row:
    """A vector of ``size`` float32 in memory, whose lanes can also be read one by one."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._buffer = T.sblock_alloc_buffer((size,), "float32")
        self._fold = T.sblock_alloc_buffer((size,), "float32")

    def __getitem__(self, lane: Any) -> Any:
        return self._buffer[lane]

    def __setitem__(self, lane: Any, value: Any) -> None:
        T.buffer_store(self._buffer, value, [lane])

    def load(self) -> Any:
        """All lanes."""
        return self._buffer[ramp(0, 1, self._size)]

    def store(self, value: Any) -> None:
        """Write all lanes."""
        T.buffer_store(self._buffer, value, [ramp(0, 1, self._size)])

    def reduce(self, combine: Any) -> Any:
        """The lanes combined in halves, such as with ``T.max``."""
        T.buffer_store(self._fold, self.load(), [ramp(0, 1, self._size)])
        half = self._size // 2
        while half:
            folded = combine(self._fold[ramp(0, 1, half)], self._fold[ramp(half, 1, half)])
            T.buffer_store(self._fold, folded, [ramp(0, 1, half)])
            half //= 2
        return self._fold[0]


def sums_of(vectors: list[Any], lanes: int) -> Any:
    """A vector whose lane ``i`` is the sum over the lanes of ``vectors[i]``, of which there are ``lanes``.

    Two vectors become one at every step, each folded in half: about three instructions for a sum.
    Shuffles stay within 128 bits where they can, since those are cheaper on many processors.
    """
    assert len(vectors) == lanes, "as many vectors as lanes"
    order = _fold_order(lanes)
    level = [vectors[order.index(i)] for i in range(lanes)]
    size = lanes
    while size > 1:
        low, high, _ = _fold_indices(lanes, size)
        level = [
            T.Bind(T.Shuffle([a, b], low) + T.Shuffle([a, b], high))
            for a, b in zip(level[::2], level[1::2], strict=True)
        ]
        size //= 2
    return level[0]


def _fold_indices(lanes: int, size: int) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """How two vectors with partial sums in runs of ``size`` lanes fold into one with runs half as long.

    Returns:
        The lanes of both to take the first and the second half of each run from, and of each new run
        which of the two vectors and which of its runs it comes from.
    """
    runs, half = lanes // size, size // 2
    # Runs of up to four lanes lie within 128 bits, and there they take turns.
    width = min(runs, 4 // size) if size <= 4 else runs
    new = [
        (vector, first + run)
        for first in range(0, runs, width)
        for vector in (0, 1)
        for run in range(width)
    ]
    starts = [vector * lanes + run * size for vector, run in new]
    low = [start + lane for start in starts for lane in range(half)]
    return low, [index + half for index in low], new


def _fold_order(lanes: int) -> list[int]:
    """Number of the vector, as they are folded, whose sum comes to lie in each lane."""
    level = [[i] for i in range(lanes)]
    size = lanes
    while size > 1:
        new = _fold_indices(lanes, size)[2]
        level = [
            [(a, b)[vector][run] for vector, run in new]
            for a, b in zip(level[::2], level[1::2], strict=True)
        ]
        size //= 2
    return level[0]


def exp2(x: Any, lanes: int) -> Any:
    """``2**x`` for ``x < 127`` in float32, within 3e-7 of the value; below -126 it is ``2**-126``.

    The integer part goes into the exponent's bits and the rest, within 1/2 of 0, into the Taylor
    polynomial of degree 7, whose remainder is below 6e-9.
    """
    x = T.Bind(T.max(x, broadcast(T.float32(-126), lanes)))
    whole = T.Bind(T.floor(x + broadcast(T.float32(0.5), lanes)))
    rest = T.Bind(x - whole)
    result = broadcast(T.float32(math.log(2) ** 7 / math.factorial(7)), lanes)
    for degree in range(6, -1, -1):
        coefficient = math.log(2) ** degree / math.factorial(degree)
        result = fused(result, rest, broadcast(T.float32(coefficient), lanes), lanes)
    exponent = T.Cast(vector("int32", lanes), whole) + broadcast(T.int32(127), lanes)
    power = T.shift_left(exponent, broadcast(T.int32(23), lanes))
    return T.Bind(result * T.reinterpret(vector("float32", lanes), power))
