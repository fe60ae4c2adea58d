"""Rows of a table that may be stored in parts, plain or as codes in 32-bit words, in one kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import te, tirx

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
            words ``(rows, columns * bits / 32)``, scales ``(rows, columns / group)`` and perhaps zero
            points in words, see ``layouts.mlc``.
        columns: of the table.
        dtype: of the result.
    """

    def value(i: Any, j: Any) -> Any:
        ends = 0
        firsts = []
        for part in parts:
            firsts.append(ends)
            ends += int(part[0].shape[0])
        result: Any = None
        for part, first in zip(parts, firsts, strict=True):
            own = _value(part, ids[i] - first, j, columns, dtype)
            result = own if result is None else tirx.if_then_else(ids[i] >= first, own, result)
        return result

    return te.compute((ids.shape[0], columns), value, name="lookup")


def _value(part: Sequence[te.Tensor], row: Any, column: Any, columns: int, dtype: str) -> Any:
    if len(part) == 1:
        return part[0][row, column].astype(dtype)
    words, scales, *zeros = part
    bits = 32 * int(words.shape[1]) // columns
    group = columns // int(scales.shape[1])
    middle = (1 << (bits - 1)) - 1
    zero = _number(zeros[0], row, column // group, bits) if zeros else middle
    centered = _number(words, row, column, bits) - zero
    return tirx.Cast(dtype, centered) * scales[row, column // group].astype(dtype)


def _number(words: te.Tensor, row: Any, place: Any, bits: int) -> Any:
    """The number at a place of a row of words, int32."""
    per_word = 32 // bits
    shift = tirx.Cast("uint32", (place % per_word) * bits)
    mask = tirx.const((1 << bits) - 1, "uint32")
    return tirx.Cast(
        "int32", tirx.bitwise_and(tirx.shift_right(words[row, place // per_word], shift), mask)
    )
