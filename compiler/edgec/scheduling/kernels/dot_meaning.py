"""What kernels that sum products of bytes compute, in loops for the CPU: their references.

A layer's reference takes the zero points off the codes one by one, and so reads nothing of the terms that
a kernel begins its sums with: if those were wrong, both would differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.cpu_dot import TILE
from edgec.scheduling.kernels.quantize_rows import LARGEST, WORD, Quantized, room_of, word_place

if TYPE_CHECKING:
    from edgec.scheduling.kernels.linear import Linear
    from edgec.scheduling.kernels.quantize_rows import QuantizedRows


def quantize(q: QuantizedRows, *, single: bool) -> Any:
    """The PrimFunc ``(x (m, k), words, scales, terms)``; places that no row has are left alone.

    Args:
        q: what is quantized how.
        single: whether ``m`` is 1.
    """
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            m = 1 if single else T.int64()
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
    tiles, groups = -(-linear.n // TILE), linear.k // linear.group
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            m = 1 if single else T.int64()
            x = Quantized.arguments(linear, rows, m)
            words = (tiles, linear.k // linear.codes_per_word, TILE)
            w = T.arg("w", T.buffer(words, "uint32"))
            scales = T.arg("scales", T.buffer((tiles, groups, TILE), linear.scale_dtype))
            zeros = None
            if linear.zeros:
                zeros = T.arg("zeros", T.buffer((tiles, groups, linear.bits // 2), "uint32"))
            y = T.arg("y", T.buffer((m, linear.n), linear.y_dtype))
            with T.sblock("root"), T.serial(0, m) as row, T.serial(0, linear.n) as column:
                result = T.sblock_alloc_buffer((1,), "float32")
                total = T.sblock_alloc_buffer((1,), "int32")
                tile, lane = column // TILE, T.Cast("int32", column % TILE)
                block, slot = row // rows, row % rows
                room = T.Bind(room_of(rows, m - block * rows))
                T.buffer_store(result, T.float32(0), [0])
                with T.serial(0, groups) as group:
                    T.buffer_store(total, T.int32(0), [0])
                    zero: Any = T.int32(linear.middle)
                    if zeros is not None:
                        zero = T.Bind(_zero(linear, zeros, tile, group, lane))
                    with T.serial(0, linear.group) as step:
                        k = group * linear.group + step
                        word = x.words[block, word_place(k // WORD, slot, room, beside)]
                        code = _code(linear, w[tile, k // linear.codes_per_word, lane], k)
                        product = (code - zero) * _byte(word, T.Cast("int32", k % WORD))
                        T.buffer_store(total, total[0] + product, [0])
                    factor = T.Cast("float32", scales[tile, group, lane])
                    factor = factor * x.scales[block, group * room + slot]
                    value = T.Cast("float32", total[0]) * factor
                    T.buffer_store(result, result[0] + value, [0])
                T.buffer_store(y, T.Cast(linear.y_dtype, result[0]), [row, column])
        return builder.get()


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
