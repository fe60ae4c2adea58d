"""How sums of products of bytes lie in registers, and what they meet there.

In rows: a register has the sums of one row of activations with as many rows of the weights as it has
lanes. In blocks: it has those of two rows of activations with two rows of the weights, as Arm's
instructions for products of 2x8 by 8x2 matrices leave them (``i8mm``): ``[w0 x0, w0 x1, w1 x0, w1 x1]``.
Sums of integers are exact and floats are computed alike, so that a row has the same results in both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.quantize_rows import WORD
from edgec.scheduling.kernels.vectors import ramp

if TYPE_CHECKING:
    from edgec.scheduling.kernels.byte_dots import ByteDots
    from edgec.scheduling.kernels.quantize_rows import Quantized


class RowSums:
    """Sums of one row of activations.

    Args:
        dots: how products are summed.
        x: the activations.
        room: rows that a block of them has room for.
    """

    height = 1
    """Rows of activations in a register: registers for each vector of rows of the weights, too."""

    def __init__(self, dots: ByteDots, x: Quantized, room: int) -> None:
        self._dots, self._x, self._room = dots, x, room

    def scales(self, block: Any, group: Any, row: int) -> Any:
        """What a step of a group is worth in a row of activations, for every sum; float32."""
        return self._spread(self._x.scales, block, group, row)

    def terms(self, block: Any, group: Any, row: int) -> Any:
        """The terms of the zero points in a row of activations, for every sum; int32."""
        return self._spread(self._x.terms, block, group, row)

    def _spread(self, values: Any, block: Any, group: Any, row: int) -> Any:
        lanes, place = self._dots.lanes, group * self._room
        if self._dots.by_element and self._room % WORD == 0:
            four = T.Bind(values[block, ramp(place + row // WORD * WORD, 1, WORD)])
            return T.Shuffle([four], [row % WORD] * lanes)
        return T.broadcast(values[block, place + row], lanes)

    def along(self, values: Any) -> list[Any]:
        """A value for each row of a vector of weights, for the sums of each register."""
        return [values]

    def operands(self, codes: list[Any]) -> list[list[Any]]:
        """What to multiply, step by step: an operand for each register.

        Args:
            codes: those of a vector of rows, four neighbouring columns to a lane.
        """
        return [[code] for code in codes]

    def activations(self, block: Any, column: Any) -> Words:
        """The activations from a column on, counted in words."""
        return Words(self._dots, self._x, self._room, block, column)

    def add(self, sums: Any, codes: Any, activations: Any) -> Any:
        """Add the products of a step."""
        return self._dots.add(sums, codes, activations)

    def in_rows(self, registers: list[Any]) -> list[Any]:
        """The registers of a vector of weights, as a vector for each row of activations."""
        return registers


class Words:
    """Four activations at a time, of one row, as a 32-bit number or in every lane."""

    def __init__(self, dots: ByteDots, x: Quantized, room: int, block: Any, column: Any) -> None:
        self._dots, self._x, self._room = dots, x, room
        self._block, self._column = block, column
        self._loaded: dict[int, Any] = {}

    def step(self, step: int, row: int) -> Any:
        """The word of a row, so many words from the first column on."""
        words, room = self._x.words, self._room
        if not self._dots.by_element:
            return T.Bind(words[self._block, (self._column + step) * room + row])
        # One load serves four words: the instruction chooses one of them.
        index, element = divmod(step * room + row, WORD)
        if index not in self._loaded:
            first = self._column * room + index * WORD
            self._loaded[index] = T.Bind(words[self._block, ramp(first, 1, WORD)])
        return T.Shuffle([self._loaded[index]], [element] * WORD)


class BlockSums(RowSums):
    """Sums of two rows of activations with two rows of the weights."""

    height = 2

    def _spread(self, values: Any, block: Any, group: Any, row: int) -> Any:
        two = values[block, ramp(group * self._room + self.height * row, 1, self.height)]
        return T.Shuffle([two, two], [0, 1, 2, 3])

    def along(self, values: Any) -> list[Any]:
        """See :meth:`RowSums.along`."""
        return [T.Shuffle([values], [i, i, i + 1, i + 1]) for i in (0, 2)]

    def operands(self, codes: list[Any]) -> list[list[Any]]:
        """See :meth:`RowSums.operands`; a step takes eight columns."""
        return [
            [T.Bind(T.Shuffle([left, right], [i, WORD + i, i + 1, WORD + i + 1])) for i in (0, 2)]
            for left, right in zip(codes[::2], codes[1::2], strict=True)
        ]

    def activations(self, block: Any, column: Any) -> Words:
        """See :meth:`RowSums.activations`."""
        return _Blocks(self._dots, self._x, self._room, block, column)

    def add(self, sums: Any, codes: Any, activations: Any) -> Any:
        """See :meth:`RowSums.add`."""
        return self._dots.add_block(sums, codes, activations)

    def in_rows(self, registers: list[Any]) -> list[Any]:
        """See :meth:`RowSums.in_rows`."""
        return [T.Shuffle(registers, [i, 2 + i, 4 + i, 6 + i]) for i in (0, 1)]


class _Blocks(Words):
    """Eight activations of each of two rows."""

    def step(self, step: int, row: int) -> Any:
        first = (self._column + 2 * step) * self._room + WORD * row
        return T.Bind(self._x.words[self._block, ramp(first, 1, WORD)])


def sums_in_registers(dots: ByteDots, x: Quantized, room: int) -> RowSums:
    """The way for blocks of activations with room for some rows."""
    return (BlockSums if dots.blocks and room > 1 else RowSums)(dots, x, room)
