"""Linear layers on GPUs without sub-groups, by hand: one row, and tiles of many.

A barrier costs more in browsers than arithmetic does: kernels have no sub-groups to count on there,
and where a CPU computes them a work-group is taken apart at every barrier. Loads cost more than
arithmetic, too, those from shared memory no less than the others, and Mali has no such memory at all.
So a single row has one barrier in all, and a tile none: a lane reads a word of the weights into a
register and dequantizes its codes there, again in every lane that needs them.

Of a single row, the sum over a word's codes is made first and scaled once:
``sum(x * (q - z)) * scale``, in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.gpu_work_group import (
    Memory,
    barrier,
    keep,
    kernel_attributes,
    launch,
    registers,
    shared,
    when,
)
from edgec.scheduling.kernels.linear import LinearKernel

if TYPE_CHECKING:
    from edgec.scheduling.kernels.linear import Linear

LANES = 64
"""Lanes of a work-group, in both forms."""

_ALONG = 16  # lanes of a single row's work-group that share a row of the weights
_ROWS = 4  # rows of the weights that such a lane adds up side by side
_SIDE = (
    8  # lanes of a tile's work-group, each way; neighbours have neighbouring columns of the result
)
_HIGH, _WIDE = 4, 8  # rows and columns of the result that such a lane adds up
_UNIT = 8  # plain weights that a lane takes in one step

ROW_OUTPUTS = LANES // _ALONG * _ROWS
"""Outputs of a work-group with a single row."""
TILE_ROWS = _HIGH * _SIDE
"""Rows of a tile."""
TILE_OUTPUTS = _WIDE * _SIDE
"""Outputs of a tile."""
LANE_ROWS, TILE_STEP = _HIGH, _SIDE
"""Rows of a tile that a lane adds up, and how far apart they are."""


def linear_kernel(linear: Linear, *, single: bool) -> LinearKernel:
    """See :class:`edgec.scheduling.kernels.linear.LinearKernels`."""
    make = _one_row if single else _tiles
    return LinearKernel(f"{'gemv' if single else 'gemm'}_{linear.name}", make(linear))


@dataclass(frozen=True)
class Weights:
    """The arguments that hold the weights.

    Attributes:
        linear: the layer.
        stored: words ``(n, k / codes_per_word)``, or plain weights ``(n, k)``.
        scales: ``(n, k / group)``; None for plain weights.
        zeros: words ``(n, zero_words)``; None where groups have no zero points of their own.
    """

    linear: Linear
    stored: Memory
    scales: Memory | None
    zeros: Memory | None = None

    @classmethod
    def arguments(cls, linear: Linear) -> Weights:
        """Declare them."""
        columns = linear.k // linear.codes_per_word
        stored = Memory(T.arg("w", T.buffer((linear.n, columns), linear.w_dtype)))
        if not linear.bits:
            return cls(linear, stored, None)
        shape = (linear.n, linear.k // linear.group)
        scales = Memory(T.arg("scales", T.buffer(shape, linear.scale_dtype)))
        if not linear.zeros:
            return cls(linear, stored, scales)
        words = T.buffer((linear.n, linear.zero_words), "uint32")
        return cls(linear, stored, scales, Memory(T.arg("zeros", words)))

    @property
    def unit(self) -> int:
        """Neighbouring weights that a lane takes in one step: a word's."""
        return self.linear.codes_per_word if self.linear.bits else _UNIT

    def code(self, word: Any, place: int, zero: Any) -> Any:
        """One code of a word, less the zero point, in float32."""
        bits = self.linear.bits
        shifted = T.shift_right(word, T.uint32(place * bits))
        code = T.bitwise_and(shifted, T.uint32((1 << bits) - 1))
        return T.Cast("float32", code) - zero

    def zero(self, row: Any, group: Any) -> Any:
        """The zero point of a group, in float32."""
        if self.zeros is None:
            return T.float32(self.linear.middle)
        bits, per_word = self.linear.bits, self.linear.codes_per_word
        shift = T.Cast("uint32", T.truncmod(group, per_word) * bits)
        shifted = T.shift_right(self.zeros[row, T.truncdiv(group, per_word)], shift)
        return T.Cast("float32", T.bitwise_and(shifted, T.uint32((1 << bits) - 1)))

    def scale(self, row: Any, column: Any) -> Any:
        """The scale of a column, in float32."""
        assert self.scales is not None
        return T.Cast("float32", self.scales[row, T.truncdiv(column, self.linear.group)])


def _one_row(linear: Linear) -> Any:
    """``(x (1, k), w[, scales[, zeros]], y (1, n))``."""
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            x = Memory(T.arg("x", T.buffer((1, linear.k), linear.x_dtype)))
            weights = Weights.arguments(linear)
            y = Memory(T.arg("y", T.buffer((1, linear.n), linear.y_dtype)))
            with launch(LANES, -(-linear.n // ROW_OUTPUTS)) as (lane, group):
                multiply_row(weights, (x, 0), (y, 0), 0, lane, group)
        return builder.get()


def multiply_row(
    weights: Weights,
    source: tuple[Memory, Any],
    target: tuple[Memory, Any],
    start: Any,
    lane: Any,
    group: Any,
) -> None:
    """Work-group ``group`` of a single row: ``ROW_OUTPUTS`` outputs.

    Args:
        weights: of the layer.
        source: activations ``(m, k)`` and the row to take.
        target: results ``(m, n)`` and the row to write; ``n`` is the number of outputs.
        start: row of the weights that makes output 0.
        lane: of ``LANES``.
        group: of as many as outputs demand.
    """
    linear, unit = weights.linear, weights.unit
    (x, x_row), (y, y_row) = source, target
    outputs = int(y.buffer.shape[1])
    steps = -(-linear.k // unit)
    along = keep(T.bitwise_and(lane, _ALONG - 1))
    first = keep(group * ROW_OUTPUTS + T.shift_right(lane, _ALONG.bit_length() - 1) * _ROWS)
    sums, values = registers(_ROWS), registers(unit)
    for i in range(_ROWS):
        sums[i] = T.float32(0)
    with T.serial(0, -(-steps // _ALONG)) as round_:
        step = keep(round_ * _ALONG + along)
        with when(step < steps):
            for place in range(unit):
                column = step * unit + place
                if linear.k % unit:
                    column = T.min(column, linear.k - 1)
                values[place] = T.Cast("float32", x[x_row, column])
            for i in range(_ROWS):
                # Past the last row the last one is read again, and not written.
                row = keep(start + T.min(first + i, outputs - 1))
                sums[i] = sums[i] + _product(weights, values, row, step)
    partial = shared(LANES * _ROWS)
    for i in range(_ROWS):
        partial[lane * _ROWS + i] = sums[i]
    barrier()
    with when(lane < ROW_OUTPUTS):
        begin = keep(T.truncdiv(lane, _ROWS) * (_ALONG * _ROWS) + T.truncmod(lane, _ROWS))
        total = registers(1)
        total[0] = T.float32(0)
        for i in range(_ALONG):
            total[0] = total[0] + partial[begin + i * _ROWS]
        with when(group * ROW_OUTPUTS + lane < outputs):
            y[y_row, group * ROW_OUTPUTS + lane] = T.Cast(linear.y_dtype, total[0])


def _product(weights: Weights, values: Memory, row: Any, step: Any) -> Any:
    """The products of a unit of a row, added up."""
    linear, unit = weights.linear, weights.unit
    if linear.bits:
        word = keep(weights.stored[row, step], "uint32")
        zero = weights.zero(row, T.truncdiv(step * unit, linear.group))
        zero = keep(zero, "float32") if linear.zeros else zero
        terms = [values[place] * weights.code(word, place, zero) for place in range(unit)]
        return sum(terms[1:], start=terms[0]) * weights.scale(row, step * unit)
    terms = []
    for place in range(unit):
        column = step * unit + place
        if linear.k % unit:
            value = T.Cast("float32", weights.stored[row, T.min(column, linear.k - 1)])
            terms.append(T.if_then_else(column < linear.k, values[place] * value, T.float32(0)))
        else:
            terms.append(values[place] * T.Cast("float32", weights.stored[row, column]))
    return sum(terms[1:], start=terms[0])


def _tiles(linear: Linear) -> Any:
    """``(x (m, k), w[, scales[, zeros]], y (m, n))``, ``m`` at run time."""
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            m = T.int32()
            x = Memory(T.arg("x", T.buffer((m, linear.k), linear.x_dtype)))
            weights = Weights.arguments(linear)
            y = Memory(T.arg("y", T.buffer((m, linear.n), linear.y_dtype)))
            with launch(LANES, -(-linear.n // TILE_OUTPUTS), T.ceildiv(m, TILE_ROWS)) as (
                lane,
                across,
                down,
            ):
                top = keep(down * TILE_ROWS + tile_row(lane))
                # Past the last row the last one is read again, and not written.
                rows = [keep(T.min(top + i * _SIDE, m - 1)) for i in range(_HIGH)]
                written = [(top + i * _SIDE < m, top + i * _SIDE) for i in range(_HIGH)]
                multiply_tile(weights, (x, rows), (y, written), 0, lane, across)
        return builder.get()


def tile_row(lane: Any) -> Any:
    """The first of the rows of a tile that a lane adds up; the others follow ``TILE_STEP`` apart."""
    return T.shift_right(lane, _SIDE.bit_length() - 1)


def multiply_tile(
    weights: Weights,
    source: tuple[Memory, list[Any]],
    target: tuple[Memory, list[tuple[Any, Any]]],
    start: Any,
    lane: Any,
    across: Any,
) -> None:
    """Work-group ``across`` of a tile's rows: ``TILE_OUTPUTS`` outputs for each.

    Args:
        weights: of the layer.
        source: activations ``(m, k)`` and the lane's rows, ``LANE_ROWS`` of them.
        target: results ``(m, n)``, and for each row whether it is written, and where; ``n`` is the
            number of outputs.
        start: row of the weights that makes output 0.
        lane: of ``LANES``.
        across: of as many as outputs demand.
    """
    linear = weights.linear
    (x, rows), (y, written) = source, target
    outputs = int(y.buffer.shape[1])
    left = keep(across * TILE_OUTPUTS + T.bitwise_and(lane, _SIDE - 1))
    # Past the last column the last one is read again, and not written.
    columns = [keep(start + T.min(left + j * _SIDE, outputs - 1)) for j in range(_WIDE)]
    sums = registers(_HIGH * _WIDE)
    for i in range(_HIGH * _WIDE):
        sums[i] = T.float32(0)
    add = _add_words if linear.bits else _add_plain
    add(weights, x, rows, columns, sums)
    for i, (inside, row) in enumerate(written):
        with when(inside):
            for j in range(_WIDE):
                value = T.Cast(linear.y_dtype, sums[i * _WIDE + j])
                if outputs % TILE_OUTPUTS:
                    with when(left + j * _SIDE < outputs):
                        y[row, left + j * _SIDE] = value
                else:
                    y[row, left + j * _SIDE] = value


def _add_words(
    weights: Weights, x: Memory, rows: list[Any], columns: list[Any], sums: Memory
) -> None:
    """Adds ``x[rows] @ w[columns].T``: a word is read once, its codes are taken from a register."""
    linear, unit = weights.linear, weights.unit
    assert linear.group % unit == 0, "words have one scale"
    assert weights.scales is not None
    per_group = linear.group // unit
    scales, words = registers(_WIDE), registers(_WIDE, "uint32")
    points = registers(_WIDE) if linear.zeros else None
    values = registers(_HIGH)
    with T.serial(0, linear.k // linear.group) as group:
        for j, column in enumerate(columns):
            scales[j] = T.Cast("float32", weights.scales[column, group])
            if points is not None:
                points[j] = weights.zero(column, group)
        with T.serial(0, per_group) as place:
            step = keep(group * per_group + place)
            for j, column in enumerate(columns):
                words[j] = weights.stored[column, step]
            with T.serial(0, unit) as offset:
                along = keep(step * unit + offset)
                for i, row in enumerate(rows):
                    values[i] = T.Cast("float32", x[row, along])
                for j in range(_WIDE):
                    zero = weights.zero(columns[j], group) if points is None else points[j]
                    weight = keep(weights.code(words[j], 0, zero) * scales[j], "float32")
                    words[j] = T.shift_right(words[j], T.uint32(linear.bits))
                    _add_column(values, weight, sums, j)


def _add_plain(
    weights: Weights, x: Memory, rows: list[Any], columns: list[Any], sums: Memory
) -> None:
    """See :func:`_add_words`."""
    values = registers(_HIGH)
    with T.serial(0, weights.linear.k) as along:
        for i, row in enumerate(rows):
            values[i] = T.Cast("float32", x[row, along])
        for j, column in enumerate(columns):
            weight = keep(T.Cast("float32", weights.stored[column, along]), "float32")
            _add_column(values, weight, sums, j)


def _add_column(values: Memory, weight: Any, sums: Memory, column: int) -> None:
    for i in range(_HIGH):
        place = i * _WIDE + column
        sums[place] = sums[place] + values[i] * weight
