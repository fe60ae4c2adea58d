"""Rows that a GGUF file has in another order than the model.

Each order turns rows of the model into runs of rows of the file: place among the rows asked for, first
row in the file, number of rows, and step from one to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

Run = tuple[int, int, int, int]


class Order(Protocol):
    """The order of a tensor's rows."""

    def divides(self, rows: int) -> bool:
        """Whether a tensor of so many rows can have this order."""

    def runs(self, rows: int, start: int, stop: int) -> Iterator[Run]:
        """The runs of the model's rows ``[start, stop)``; the tensor has ``rows`` in all."""


@dataclass(frozen=True)
class InOrder:
    """As the model has them.

    Attributes:
        first: where the model's tensor begins in the file's: experts are stored as one.
    """

    first: int = 0

    def divides(self, rows: int) -> bool:
        """See :class:`Order`."""
        return rows > 0

    def runs(self, rows: int, start: int, stop: int) -> Iterator[Run]:
        """See :class:`Order`."""
        assert stop <= rows
        yield 0, self.first + start, stop - start, 1


@dataclass(frozen=True)
class Halves:
    """Halves ``a`` and ``b`` of each head are stored as a0 b0 a1 b1 and so on.

    Row ``i`` of half ``h`` of a head is row ``2 i + h`` of that head in the file.

    Attributes:
        heads: how many there are.
    """

    heads: int

    def divides(self, rows: int) -> bool:
        """See :class:`Order`."""
        return rows % (2 * self.heads) == 0

    def runs(self, rows: int, start: int, stop: int) -> Iterator[Run]:
        """See :class:`Order`."""
        half = rows // self.heads // 2
        row = start
        while row < stop:
            piece, inside = divmod(row, half)
            count = min(half - inside, stop - row)
            head, side = divmod(piece, 2)
            yield row - start, (2 * head) * half + 2 * inside + side, count, 2
            row += count


@dataclass(frozen=True)
class Parts:
    """The model has a head's query, key and value together; the file all queries, keys, values.

    Attributes:
        heads: how many there are.
    """

    heads: int

    def divides(self, rows: int) -> bool:
        """See :class:`Order`."""
        return rows % (3 * self.heads) == 0

    def runs(self, rows: int, start: int, stop: int) -> Iterator[Run]:
        """See :class:`Order`."""
        width = rows // (3 * self.heads)
        row = start
        while row < stop:
            piece, inside = divmod(row, width)
            count = min(width - inside, stop - row)
            head, part = divmod(piece, 3)
            yield row - start, (part * self.heads + head) * width + inside, count, 1
            row += count
