"""What kernels that sum products of bytes compute, in loops for the CPU: their references.

A layer's reference takes the zero points off the codes one by one, and so reads nothing of the terms that
a kernel begins its sums with: if those were wrong, both would differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.cpu_dot import TILE, weight_arguments
from edgec.scheduling.kernels.quantize_rows import LARGEST, WORD, Quantized, room_of, word_place

if TYPE_CHECKING:
    from edgec.scheduling.kernels.experts import Experts
    from edgec.scheduling.kernels.linear import Linear
    from edgec.scheduling.kernels.quantize_rows import QuantizedRows


def quantize(q: QuantizedRows, count: int | None) -> Any:
    """The PrimFunc ``(x (m, k), words, scales, terms)``; places that no row has are left alone.

    Args:
        q: what is quantized how.
        count: ``m``, if it is known.
    """
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            m = T.int64() if count is None else count
            x = T.arg("x", T.buffer((m, q.k), q.x_dtype))
            out = Quantized.arguments(q, q.rows, m)
            with T.sblock("root"), T.serial(0, m) as row, T.serial(0, q.k // q.group) as group:
                top = T.sblock_alloc_buffer((1,), "float32")
                total = T.sblock_alloc_buffer((1,), "int32")
                block, slot = row // q.rows, row % q.rows
                room = T.Bind(room_of(q.rows, m - block * q.rows))
                T.buffer_store(top, T.float32(0), [0])
                T.buffer_store(total, T.int32(0), [0])
                with T.serial(0, q.group) as column:
                    value = T.abs(T.Cast("float32", x[row, group * q.group + column]))
                    T.buffer_store(top, T.max(top[0], value), [0])
                inverse = T.Bind(
                    T.if_then_else(top[0] > T.float32(0), T.float32(LARGEST) / top[0], T.float32(0))
                )
                with T.serial(0, q.group // WORD) as word:
                    place = group * (q.group // WORD) + word
                    packed: Any = T.int32(0)
                    for i in range(WORD):
                        value = T.Cast("float32", x[row, place * WORD + i])
                        code = T.Bind(T.Cast("int32", T.nearbyint(value * inverse)))
                        T.buffer_store(total, total[0] + code, [0])
                        byte = T.shift_left(T.bitwise_and(code, T.int32(255)), T.int32(8 * i))
                        packed = T.bitwise_or(packed, byte)
                    at = word_place(place, slot, room, q.beside)
                    T.buffer_store(out.words, packed, [block, at])
                T.buffer_store(
                    out.scales, top[0] * T.float32(1 / LARGEST), [block, group * room + slot]
                )
                T.buffer_store(
                    out.terms, total[0] * T.int32(-q.factor), [block, group * room + slot]
                )
        return builder.get()


def matmul(linear: Linear, rows: int, beside: int, *, single: bool) -> Any:
    """The PrimFunc ``(words, scales, terms, w, scales[, zeros], y (m, n))``.

    Args:
        linear: the layer, tiled.
        rows: of activations in a block.
        beside: words of a row of them that lie side by side.
        single: whether ``m`` is 1.
    """
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            m = 1 if single else T.int64()
            x = Quantized.arguments(linear, rows, m)
            weights = _Weights(linear)
            y = T.arg("y", T.buffer((m, linear.n), linear.y_dtype))
            with T.sblock("root"), T.serial(0, m) as row, T.serial(0, linear.n) as column:
                room = T.Bind(room_of(rows, m - row // rows * rows))
                found = _Row(x, row // rows, row % rows, room, beside)
                T.buffer_store(y, weights.product(found, column), [row, column])
        return builder.get()


def expert_matmul(e: Experts, beside: int) -> Any:
    """The PrimFunc ``(words, scales, terms, ids (s,), w, scales[, zeros], y (s, n))``.

    Args:
        e: the layer, tiled.
        beside: words of a row of activations that lie side by side.
    """
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            rows, slots = T.int64(), T.int64()
            x = Quantized.arguments(e.linear, 1, rows)
            ids = T.arg("ids", T.buffer((slots,), "int32"))
            weights = _Weights(e.all)
            y = T.arg("y", T.buffer((slots, e.linear.n), e.linear.y_dtype))
            with T.sblock("root"), T.serial(0, slots) as slot, T.serial(0, e.linear.n) as column:
                found = _Row(x, slot // e.share, T.int64(0), T.int64(1), beside)
                row = T.Cast("int64", ids[slot]) * e.linear.n + column
                T.buffer_store(y, weights.product(found, row), [slot, column])
        return builder.get()


class _Row(NamedTuple):
    """A row of activations.

    Attributes:
        x: all of them.
        block: that it is in.
        slot: its place there.
        room: rows that the block has room for.
        beside: words of a row that lie side by side.
    """

    x: Quantized
    block: Any
    slot: Any
    room: Any
    beside: int

    def code(self, k: Any) -> Any:
        """Of a column, as int32."""
        word = self.x.words[self.block, word_place(k // WORD, self.slot, self.room, self.beside)]
        return _byte(word, T.Cast("int32", k % WORD))

    def scale(self, group: Any) -> Any:
        """What a step of a group is worth."""
        return self.x.scales[self.block, group * self.room + self.slot]


class _Weights:
    """A kernel's arguments that hold weights in tiles."""

    def __init__(self, linear: Linear) -> None:
        self._linear = linear
        self._groups = linear.k // linear.group
        self._w, self._scales, self._zeros = weight_arguments(linear)

    def product(self, x: _Row, row: Any) -> Any:
        """The product of a row of activations with one of the weights."""
        linear = self._linear
        result = T.sblock_alloc_buffer((1,), "float32")
        total = T.sblock_alloc_buffer((1,), "int32")
        tile, lane = row // TILE, T.Cast("int32", row % TILE)
        T.buffer_store(result, T.float32(0), [0])
        with T.serial(0, self._groups) as group:
            T.buffer_store(total, T.int32(0), [0])
            zero: Any = T.int32(linear.middle)
            if self._zeros is not None:
                zero = T.Bind(_zero(linear, self._zeros, tile, group, lane))
            with T.serial(0, linear.group) as step:
                k = group * linear.group + step
                code = _code(linear, self._w[tile, k // linear.codes_per_word, lane], k)
                T.buffer_store(total, total[0] + (code - zero) * x.code(k), [0])
            factor = T.Cast("float32", self._scales[tile, group, lane]) * x.scale(group)
            T.buffer_store(result, result[0] + T.Cast("float32", total[0]) * factor, [0])
        return T.Cast(linear.y_dtype, result[0])


def _code(linear: Linear, word: Any, k: Any) -> Any:
    """The code of a column, unsigned, as int32."""
    within = T.Cast("int32", k % linear.codes_per_word)
    shift = within % T.int32(4) * T.int32(8) + within // T.int32(4) * T.int32(4)
    return _bits(word, shift, linear.bits)


def _zero(linear: Linear, zeros: Any, tile: Any, group: Any, lane: Any) -> Any:
    """The zero point of a row of a tile, as int32."""
    if linear.bits == 4:
        word, shift = lane % T.int32(2), lane // T.int32(2) * T.int32(4)
    else:
        word, shift = lane // T.int32(4), lane % T.int32(4) * T.int32(8)
    return _bits(zeros[tile, group, word], shift, linear.bits)


def _bits(word: Any, shift: Any, bits: int) -> Any:
    shifted = T.shift_right(word, T.Cast("uint32", shift))
    return T.Cast("int32", T.bitwise_and(shifted, T.uint32((1 << bits) - 1)))


def _byte(word: Any, place: Any) -> Any:
    """A signed byte of an int32."""
    top = T.shift_left(word, T.int32(24) - place * T.int32(8))
    return T.shift_right(top, T.int32(24))
