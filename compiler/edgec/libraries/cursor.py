"""Reading binary formats as if their author meant harm: every offset and count is checked."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal

from edgec.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Most names are short, and no compiler writes one longer than the bound, without which a hostile
# string table would be searched to its end for every symbol.
_SHORT_NAME = 128
_LONGEST_NAME = 1 << 16
REMEDY = "the file is damaged or of another format; build it again"


def damaged(what: str, where: str) -> VerificationError:
    """The error for a file that contradicts its own format."""
    return VerificationError(what, where=where, remedy=REMEDY)


def decode(raw: bytes | memoryview, what: str, where: str) -> str:
    """UTF-8 text.

    Args:
        raw: its bytes.
        what: names the text in the error message.
        where: names the file.

    Raises:
        VerificationError: the bytes aren't UTF-8.
    """
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError as error:
        raise damaged(f"{what} is not UTF-8", where) from error


class Cursor:
    """A place in bytes that moves forward as they are read.

    Args:
        data: all bytes.
        where: names them in error messages.
        offset: where to begin.
        order: ``"<"`` for little-endian integers, ``">"`` for big-endian ones.

    Attributes:
        offset: of the byte read next.
    """

    def __init__(
        self,
        data: bytes | memoryview,
        where: str,
        offset: int = 0,
        order: Literal["<", ">"] = "<",
    ) -> None:
        self.where = where
        self.offset = offset
        self._data = memoryview(data)
        self._order = order
        if not 0 <= offset <= len(self._data):
            raise damaged(f"it ends after {len(self._data)} bytes, before byte {offset}", where)

    @property
    def left(self) -> int:
        """How many bytes follow."""
        return len(self._data) - self.offset

    def view(self, size: int, what: str) -> memoryview:
        """The next ``size`` bytes, not copied; ``what`` names them in the error message."""
        if not 0 <= size <= self.left:
            raise damaged(
                f"{what} at byte {self.offset} should have {size} bytes, {self.left} follow",
                self.where,
            )
        start = self.offset
        self.offset += size
        return self._data[start : self.offset]

    def unpack(self, layout: str, what: str) -> tuple[int, ...]:
        """Integers in :mod:`struct`'s notation, without the byte order."""
        layout = self._order + layout
        return struct.unpack(layout, self.view(struct.calcsize(layout), what))

    def rows(self, layout: str, count: int, what: str) -> Iterator[tuple[int, ...]]:
        """A table of ``count`` rows of integers; its size is checked before the first row."""
        layout = self._order + layout
        return struct.iter_unpack(layout, self.view(count * struct.calcsize(layout), what))

    def u32(self, what: str) -> int:
        """An unsigned integer of 4 bytes."""
        return self.unpack("I", what)[0]

    def u64(self, what: str) -> int:
        """An unsigned integer of 8 bytes."""
        return self.unpack("Q", what)[0]

    def u64s(self, what: str) -> tuple[int, ...]:
        """A vector of TVM's streams: how many (8 bytes), then as many integers of 8 bytes."""
        return tuple(row[0] for row in self.rows("Q", self.u64(what), what))

    def sized(self, what: str) -> bytes:
        """A string of TVM's streams: its length (8 bytes), then its bytes."""
        return bytes(self.view(self.u64(what), what))

    def text(self, what: str) -> str:
        """Like :meth:`sized`, as text."""
        return decode(self.sized(what), what, self.where)

    def finish(self, what: str) -> None:
        """Check that nothing follows."""
        if self.left:
            raise damaged(f"{self.left} bytes follow {what}", self.where)


def c_string(table: memoryview, offset: int, what: str, where: str) -> str:
    """A name that ends with a zero byte, out of a string table.

    Raises:
        VerificationError: it begins outside the table or doesn't end in it.
    """
    if not 0 <= offset < len(table):
        raise damaged(f"{what} lies outside its string table", where)
    for size in (_SHORT_NAME, _LONGEST_NAME):
        head, end, _ = bytes(table[offset : offset + size]).partition(b"\0")
        if end:
            return decode(head, what, where)
    raise damaged(f"{what} does not end in its string table", where)
