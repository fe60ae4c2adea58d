"""Linear layers on GPUs without sub-groups, by hand: one row, and tiles of many.

A barrier costs more in browsers than arithmetic does: kernels have no sub-groups to count on there,
and where a CPU computes them a work-group is taken apart at every barrier. So a single row has one
barrier in all, and a tile has two for as many columns of the weights as share a scale.

Weights are dequantized where they are used. Of a single row, the sum over a word's codes is made
first and scaled once: ``sum(x * (q - z)) * scale``, in float32.
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
    power_of_two,
    registers,
    shared,
    when,
)

if TYPE_CHECKING:
    from edgec.scheduling.kernels.linear import Linear

_LANES = 64
_ALONG = 16  # lanes of a single row's work-group that share a row of the weights
_ROWS = 4  # rows of the weights that such a lane adds up side by side
_SIDE = 8  # lanes of a tile's work-group, each way
_DEPTH = 32  # columns of the weights between two barriers of a tile
# Neighbouring lanes have neighbouring columns of the result, and a column of a tile begins in another bank
# of shared memory than the one before it.
_UNIT = 8  # plain weights that a lane takes in one step


def linear_kernel(linear: Linear, *, single: bool) -> tuple[str, Any]:
    """See :class:`edgec.scheduling.kernels.linear.LinearKernels`."""
    make = _one_row if single else _tiles
    return f"{'gemv' if single else 'gemm'}_{linear.name}", make(linear)


@dataclass(frozen=True)
class _Weights:
    """The arguments that hold the weights.

    Attributes:
        linear: the layer.
        stored: words ``(n, k / codes_per_word)``, or plain weights ``(n, k)``.
        scales: ``(n, k / group)``; None for plain weights.
    """

    linear: Linear
    stored: Memory
    scales: Memory | None

    @classmethod
    def arguments(cls, linear: Linear) -> _Weights:
        """Declare them."""
        columns = linear.k // linear.codes_per_word
        stored = Memory(T.arg("w", T.buffer((linear.n, columns), linear.w_dtype)))
        if not linear.bits:
            return cls(linear, stored, None)
        shape = (linear.n, linear.k // linear.group)
        return cls(linear, stored, Memory(T.arg("scales", T.buffer(shape, linear.scale_dtype))))

    @property
    def unit(self) -> int:
        """Neighbouring weights that a lane takes in one step: a word's."""
        return self.linear.codes_per_word if self.linear.bits else _UNIT

    def code(self, word: Any, place: int) -> Any:
        """One code of a word, less the zero point, in float32."""
        bits = self.linear.bits
        mask, zero = (1 << bits) - 1, (1 << (bits - 1)) - 1
        shifted = T.shift_right(word, T.uint32(place * bits))
        code = T.bitwise_and(shifted, T.uint32(mask))
        return T.Cast("float32", code) - T.float32(zero)

    def scale(self, row: Any, column: Any) -> Any:
        """The scale of a column, in float32."""
        assert self.scales is not None
        return T.Cast("float32", self.scales[row, T.truncdiv(column, self.linear.group)])


def _one_row(linear: Linear) -> Any:
    """``(x (1, k), w[, scales], y (1, n))``."""
    groups_of_lanes = _LANES // _ALONG
    per_group = groups_of_lanes * _ROWS
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            x = Memory(T.arg("x", T.buffer((1, linear.k), linear.x_dtype)))
            weights = _Weights.arguments(linear)
            y = Memory(T.arg("y", T.buffer((1, linear.n), linear.y_dtype)))
            unit = weights.unit
            steps = -(-linear.k // unit)
            with launch(_LANES, -(-linear.n // per_group)) as (lane, group):
                along = keep(T.bitwise_and(lane, _ALONG - 1))
                first = keep(
                    group * per_group + T.shift_right(lane, _ALONG.bit_length() - 1) * _ROWS
                )
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
                            values[place] = T.Cast("float32", x[0, column])
                        for i in range(_ROWS):
                            # Past the last row the last one is read again, and not written.
                            row = keep(T.min(first + i, linear.n - 1))
                            sums[i] = sums[i] + _product(weights, values, row, step)
                partial = shared(_LANES * _ROWS)
                for i in range(_ROWS):
                    partial[lane * _ROWS + i] = sums[i]
                barrier()
                with when(lane < per_group):
                    start = keep(
                        T.truncdiv(lane, _ROWS) * (_ALONG * _ROWS) + T.truncmod(lane, _ROWS)
                    )
                    total = registers(1)
                    total[0] = T.float32(0)
                    for i in range(_ALONG):
                        total[0] = total[0] + partial[start + i * _ROWS]
                    with when(group * per_group + lane < linear.n):
                        y[0, group * per_group + lane] = T.Cast(linear.y_dtype, total[0])
        return builder.get()


def _product(weights: _Weights, values: Memory, row: Any, step: Any) -> Any:
    """The products of a unit of a row, added up."""
    linear, unit = weights.linear, weights.unit
    if linear.bits:
        word = keep(weights.stored[row, step], "uint32")
        terms = [values[place] * weights.code(word, place) for place in range(unit)]
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
    """``(x (m, k), w[, scales], y (m, n))``, ``m`` at run time."""
    high, wide = 4, (8 if linear.n >= 512 else 4)
    tall, broad = high * _SIDE, wide * _SIDE
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            m = T.int32()
            x = Memory(T.arg("x", T.buffer((m, linear.k), linear.x_dtype)))
            weights = _Weights.arguments(linear)
            y = Memory(T.arg("y", T.buffer((m, linear.n), linear.y_dtype)))
            with launch(_SIDE * _SIDE, -(-linear.n // broad), T.ceildiv(m, tall)) as (
                lane,
                across,
                down,
            ):
                tile_x, tile_w = shared(_DEPTH * (tall + 1)), shared(_DEPTH * (broad + 1))
                right = keep(T.bitwise_and(lane, _SIDE - 1))
                below = keep(T.shift_right(lane, _SIDE.bit_length() - 1))
                sums = registers(high * wide)
                for i in range(high * wide):
                    sums[i] = T.float32(0)
                with T.serial(0, -(-linear.k // _DEPTH)) as step:
                    start = keep(step * _DEPTH)
                    barrier()
                    _fetch_x(linear, x, tile_x, tall, down * tall, start, lane, m)
                    _fetch_w(weights, tile_w, broad, across * broad, start, lane)
                    barrier()
                    a, b = registers(high), registers(wide)
                    with T.serial(0, _DEPTH) as k:
                        for i in range(high):
                            a[i] = tile_x[k * (tall + 1) + i * _SIDE + below]
                        for j in range(wide):
                            b[j] = tile_w[k * (broad + 1) + j * _SIDE + right]
                        for i in range(high):
                            for j in range(wide):
                                sums[i * wide + j] = sums[i * wide + j] + a[i] * b[j]
                for i in range(high):
                    row = keep(down * tall + i * _SIDE + below)
                    with when(row < m):
                        for j in range(wide):
                            column = across * broad + j * _SIDE + right
                            value = T.Cast(linear.y_dtype, sums[i * wide + j])
                            if linear.n % broad:
                                with when(column < linear.n):
                                    y[row, column] = value
                            else:
                                y[row, column] = value
        return builder.get()


def _fetch_x(
    linear: Linear, x: Memory, tile: Memory, tall: int, top: Any, start: Any, lane: Any, m: Any
) -> None:
    """Activations ``(tall, _DEPTH)`` into ``tile[k * (tall + 1) + row]``, zeros past the last column."""
    lanes = _SIDE * _SIDE
    column = keep(T.bitwise_and(lane, _DEPTH - 1))
    first = keep(T.shift_right(lane, _DEPTH.bit_length() - 1))
    with T.serial(0, tall * _DEPTH // lanes) as i:
        row = keep(i * (lanes // _DEPTH) + first)
        # Past the last row the last one is read again: what becomes of it isn't written.
        source = T.min(top + row, m - 1)
        if linear.k % _DEPTH:
            value = T.Cast("float32", x[source, T.min(start + column, linear.k - 1)])
            value = T.if_then_else(start + column < linear.k, value, T.float32(0))
        else:
            value = T.Cast("float32", x[source, start + column])
        tile[column * (tall + 1) + row] = value


def _fetch_w(weights: _Weights, tile: Memory, broad: int, left: Any, start: Any, lane: Any) -> None:
    """Weights of ``broad`` rows, ``_DEPTH`` columns, into ``tile[k * (broad + 1) + row]``."""
    linear, lanes = weights.linear, _SIDE * _SIDE
    unit = linear.codes_per_word
    per_row = _DEPTH // unit
    assert power_of_two(per_row) == per_row, "words fill a step"
    with T.serial(0, -(-broad * per_row // lanes)) as i:
        index = keep(i * lanes + lane)
        row = keep(T.truncdiv(index, per_row))
        place = keep(T.truncmod(index, per_row))
        source = keep(T.min(left + row, linear.n - 1))
        column = keep(start + place * unit)
        inside = keep(T.min(column, linear.k - unit))
        if linear.bits:
            word = keep(weights.stored[source, T.truncdiv(inside, unit)], "uint32")
            scale = keep(weights.scale(source, inside), "float32")
            for offset in range(unit):
                tile[(place * unit + offset) * (broad + 1) + row] = (
                    weights.code(word, offset) * scale
                )
        else:
            # Past the last column the activations are zero.
            tile[place * (broad + 1) + row] = T.Cast("float32", weights.stored[source, inside])
