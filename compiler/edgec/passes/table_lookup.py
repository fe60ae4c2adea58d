"""Rows of a table that may be stored in parts, plain or as codes in 32-bit words, in one kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import te, tirx

from edgec.layouts.dot4 import TILE

if TYPE_CHECKING:
    from collections.abc import Sequence


def lookup(
    ids: te.Tensor, parts: Sequence[Sequence[te.Tensor]], columns: int, dtype: str
) -> te.Tensor:
    """Rows ``ids`` ``(n,)`` of a table as ``(n, columns)``.

    Only the part that has a row is read.

    Args:
        ids: within the table.
        parts: of the table, in the order of their rows; each is one tensor ``(rows, columns)``, or
            words, scales and perhaps zero points as in ``layouts.mlc``, with two axes, or as in
            ``layouts.dot4``, with three. Those before the last have whole tiles.
        columns: of the table.
        dtype: of the result.
    """

    def value(i: Any, j: Any) -> Any:
        ends = 0
        firsts = []
        for part in parts:
            firsts.append(ends)
            ends += rows_of(part[0].shape)
        result: Any = None
        for part, first in zip(parts, firsts, strict=True):
            own = _value(part, ids[i] - first, j, columns, dtype)
            result = own if result is None else tirx.if_then_else(ids[i] >= first, own, result)
        return result

    return te.compute((ids.shape[0], columns), value, name="lookup")


def rows_of(stored: Sequence[int]) -> int:
    """Rows of the matrix, up to whole tiles, that a stored tensor of this shape has."""
    return int(stored[0]) * (TILE if _in_tiles(stored) else 1)


def _in_tiles(stored: Sequence[int]) -> bool:
    return len(stored) == 3


def _value(part: Sequence[te.Tensor], row: Any, column: Any, columns: int, dtype: str) -> Any:
    if len(part) == 1:
        return part[0][row, column].astype(dtype)
    words, scales, *zeros = part
    bits = 32 * int(words.shape[1]) // columns
    group = column // (columns // int(scales.shape[1]))
    if _in_tiles(words.shape):
        tile, lane = row // TILE, row % TILE
        code = _tiled_number(words, tile, lane, column, bits)
        zero = _tiled_zero(zeros[0], tile, lane, group, bits) if zeros else 1 << (bits - 1)
        scale = scales[tile, group, lane]
    else:
        code = _number(words, row, column, bits)
        zero = _number(zeros[0], row, group, bits) if zeros else (1 << (bits - 1)) - 1
        scale = scales[row, group]
    return tirx.Cast(dtype, code - zero) * scale.astype(dtype)


def _number(words: te.Tensor, row: Any, place: Any, bits: int) -> Any:
    """The number at a place of a row of words, int32."""
    per_word = 32 // bits
    return _bits(words[row, place // per_word], (place % per_word) * bits, bits)


def _tiled_number(words: te.Tensor, tile: Any, lane: Any, place: Any, bits: int) -> Any:
    """The same of a row of a tile, see ``layouts.dot4``."""
    per_word = 32 // bits
    within = place % per_word
    # Of 4 bits, columns 4 to 7 of a word are in the high halves of its bytes.
    shift = within % 4 * 8 + within // 4 * 4
    return _bits(words[tile, place // per_word, lane], shift, bits)


def _tiled_zero(words: te.Tensor, tile: Any, lane: Any, group: Any, bits: int) -> Any:
    """The zero point of a row of a tile, int32."""
    if bits == 4:
        return _bits(words[tile, group, lane % 2], lane // 2 * 4, bits)
    return _bits(words[tile, group, lane // 4], lane % 4 * 8, bits)


def _bits(word: Any, shift: Any, bits: int) -> Any:
    mask = tirx.const((1 << bits) - 1, "uint32")
    shifted = tirx.shift_right(word, tirx.Cast("uint32", shift))
    return tirx.Cast("int32", tirx.bitwise_and(shifted, mask))
