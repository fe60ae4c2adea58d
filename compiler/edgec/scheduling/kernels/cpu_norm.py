"""RMS and layer normalization of rows on CPUs: alone, with the residual addition before, quantized after.

A row is read twice, and the second time it lies in the nearest cache. Its sums are those of vectors whose
lanes are added last, in one order whatever the number of rows and of threads, so that a row's results
don't depend on the rows beside it. Sums, squares and the scaling are float32; the residual sum and the
result are rounded to the dtype of the hidden states, also where they go on without having been stored, so
that a kernel gives what those that it stands for would.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels import HAND_WRITTEN
from edgec.scheduling.kernels.quantize_rows import Place, Quantized, quantize_group, room_of
from edgec.scheduling.kernels.vectors import (
    Vectors,
    as_float,
    broadcast,
    ramp,
    vector,
    without_regions,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgec.scheduling.kernels.norm import Norm, NormKernels
    from edgec.scheduling.kernels.quantize_rows import QuantizedRows

PARALLEL_FROM = 1 << 14
"""Entries from which waking a thread (some microseconds) pays."""
# Vectors that are added up apart, since each addition waits for the one before.
_SUMS = 4


@dataclass(frozen=True)
class Results:
    """What a kernel writes beside the residual sum.

    Attributes:
        rows: how the normalized rows are quantized, if they are.
        plain: whether they are written as they are.
    """

    rows: QuantizedRows | None = None
    plain: bool = True


def norm_kernels(vector_bits: int) -> NormKernels:
    """The CPU's kernels, for :class:`edgec.passes.fuse_add_norm.FuseAddNorm`."""

    def make(norm: Norm, outer: Sequence[int | None]) -> Any:
        return norm_of_rows(norm, outer, Results(), vector_bits)

    return make


def norm_of_rows(
    norm: Norm, outer: Sequence[int | None], results: Results, vector_bits: int
) -> Any:
    """The PrimFunc ``(x[, addend], weight[, bias][, total][, y][, words, scales, terms])``.

    Args:
        norm: what it computes.
        outer: sizes of the leading dimensions, None for those that vary.
        results: which of the last four there are.
        vector_bits: width of the registers.
    """
    q = results.rows
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, HAND_WRITTEN: True})
            sizes = [T.int64() if size is None else size for size in outer]
            m = math.prod(sizes)

            def rows(name: str) -> Any:
                return T.arg(name, T.buffer((*sizes, norm.size), norm.dtype))

            terms = [rows(name) for name in ("x", "addend")[: 1 + norm.adds]]
            learned = [
                T.arg(name, T.buffer((norm.size,), norm.dtype))
                for name in ("weight", "bias")[: 1 + norm.centered]
            ]
            total = rows("total") if norm.keeps_sum else None
            y = rows("y") if results.plain else None
            out = Quantized.arguments(q, q.rows, m) if q else None
            few = isinstance(m, int) and m * norm.size < PARALLEL_FROM
            loop = T.serial if few else T.parallel
            with T.sblock("root"), loop(0, m) as index, T.sblock("row"):
                without_regions()
                lanes = _lanes(norm, vector_bits)
                row = _Row(norm, terms, total, _places(sizes, index), lanes)
                row.measure()
                if q is None or out is None:
                    row.write(learned, y)
                else:
                    block = T.Bind(index // q.rows)
                    room = T.Bind(room_of(q.rows, m - block * q.rows))
                    with T.serial(0, norm.size // q.group) as group:
                        values = row.group(q.group, group, learned, y)
                        place = Place(block, index % q.rows, room, group, q.beside)
                        quantize_group(values, lanes, out, place, q.factor)
        return builder.get()


def _lanes(norm: Norm, vector_bits: int) -> int:
    """As many as a register has, or fewer that divide a row."""
    lanes = vector_bits // 32
    while norm.size % lanes:
        lanes //= 2
    return lanes


def _places(sizes: Sequence[Any], index: Any) -> list[Any]:
    """The leading indices of a row, from its number."""
    places: list[Any] = [0] * len(sizes)
    wide = [axis for axis, size in enumerate(sizes) if not (isinstance(size, int) and size == 1)]
    for axis in reversed(wide[1:]):
        places[axis] = index % sizes[axis]
        index = index // sizes[axis]
    for axis in wide[:1]:
        places[axis] = index
    return places


class _Row:
    """A row, read in vectors.

    Args:
        norm: what is computed.
        terms: what is normalized, or what is added up to it.
        total: is given the residual sum, if it is kept.
        at: the row's leading indices.
        lanes: of a vector.
    """

    def __init__(
        self, norm: Norm, terms: Sequence[Any], total: Any, at: Sequence[Any], lanes: int
    ) -> None:
        self._norm, self._terms, self._total = norm, terms, total
        self._at, self._lanes = at, lanes
        self._mean: Any = None
        self._scale: Any = None

    def measure(self) -> None:
        """Find the mean, if it is taken off, and the scale."""
        if self._norm.centered:
            self._mean = self._average(lambda value: value)
        average = self._average(lambda value: value * value)
        self._scale = T.Bind(T.float32(1) / T.sqrt(average + T.float32(self._norm.epsilon)))

    def _average(self, of: Callable[[Any], Any]) -> Any:
        """The mean of a function of the entries."""
        lanes, size = self._lanes, self._norm.size
        count = next(n for n in (_SUMS, 2, 1) if size // lanes % n == 0)
        sums = Vectors(count, lanes)
        sums.clear()
        with T.serial(0, size // lanes // count) as step:
            for i in range(count):
                sums[i] = sums[i] + of(self._entries((step * count + i) * lanes))
        while count > 1:
            count //= 2
            for i in range(count):
                sums[i] = sums[i] + sums[i + count]
        if self._total is not None:
            # It has been stored, and is read from there.
            self._terms, self._total = [self._total], None
        return T.Bind(sums.sums()[0] / T.float32(size))

    def _entries(self, column: Any) -> Any:
        """Neighbouring entries without the mean, as float32."""
        lanes = self._lanes
        place = [*self._at, ramp(column, 1, lanes)]
        value, *rest = (as_float(term[tuple(place)], lanes) for term in self._terms)
        for addend in rest:
            rounded = T.Bind(T.Cast(vector(self._norm.dtype, lanes), value + addend))
            if self._total is not None:
                T.buffer_store(self._total, rounded, place)
            value = as_float(rounded, lanes)
        if self._mean is not None:
            value = value - broadcast(self._mean, lanes)
        return T.Bind(value)

    def write(self, learned: Sequence[Any], y: Any) -> None:
        """Write the normalized row."""
        with T.serial(0, self._norm.size // self._lanes) as step:
            self._normalized(step * self._lanes, learned, y)

    def group(self, size: int, number: Any, learned: Sequence[Any], y: Any) -> list[Any]:
        """The normalized entries of a group of columns in float32, also written if there is ``y``."""
        return [
            T.Bind(as_float(self._normalized(number * size + i, learned, y), self._lanes))
            for i in range(0, size, self._lanes)
        ]

    def _normalized(self, column: Any, learned: Sequence[Any], y: Any) -> Any:
        lanes = self._lanes
        weight, *bias = (as_float(item[ramp(column, 1, lanes)], lanes) for item in learned)
        value = self._entries(column) * broadcast(self._scale, lanes) * weight
        for item in bias:
            value = value + item
        rounded = T.Bind(T.Cast(vector(self._norm.dtype, lanes), value))
        if y is not None:
            T.buffer_store(y, rounded, [*self._at, ramp(column, 1, lanes)])
        return rounded
