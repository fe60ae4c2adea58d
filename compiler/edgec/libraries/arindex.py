"""The index of a static archive: which symbol is in which member."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from edgec.libraries.cursor import Cursor, c_string, damaged, decode

if TYPE_CHECKING:
    from collections.abc import Sequence

DARWIN_INDEX = "__.SYMDEF"
DARWIN_SORTED_INDEX = "__.SYMDEF SORTED"
_ENTRY = 8  # bytes of Darwin's: two numbers


def gnu_index(symbols: Sequence[tuple[str, int]]) -> bytes:
    """GNU's: how many, their members' offsets (all big-endian), their names.

    Args:
        symbols: names, and the offsets of their members' headers in the archive.
    """
    names = b"".join(name.encode() + b"\0" for name, _ in symbols)
    numbers = struct.pack(f">{len(symbols) + 1}I", len(symbols), *(o for _, o in symbols))
    return numbers + names + bytes(len(names) % 2)


def read_gnu_index(body: memoryview, *, wide: bool, where: str) -> list[tuple[str, int]]:
    """The inverse of :func:`gnu_index`.

    Args:
        body: the index.
        wide: whether its numbers have 8 bytes and not 4.
        where: names the archive in error messages.

    Raises:
        VerificationError: it is damaged.
    """
    what = "the archive's index"
    number = "Q" if wide else "I"
    cursor = Cursor(body, where, order=">")
    (count,) = cursor.unpack(number, what)
    offsets = [row[0] for row in cursor.rows(number, count, what)]
    names = bytes(cursor.view(cursor.left, what)).split(b"\0", count)
    if len(names) <= count:
        raise damaged("the archive's index has fewer names than symbols", where)
    return [(decode(n, what, where), o) for n, o in zip(names, offsets, strict=False)]


def darwin_index(symbols: Sequence[tuple[str, int]]) -> tuple[str, bytes]:
    """Darwin's: the size of the table, names' and members' offsets, the size of the names, names.

    Args:
        symbols: names, and the offsets of their members' headers in the archive.

    Returns:
        The index's name, which tells linkers whether they can search it by bisection, as they do
        when no name is there twice; and the index, whose size is a multiple of eight.
    """
    symbols = sorted(symbols)
    names = b""
    numbers = []
    for name, offset in symbols:
        numbers += [len(names), offset]
        names += name.encode() + b"\0"
    names += bytes(-len(names) % 8)
    unique = len({name for name, _ in symbols}) == len(symbols)
    return DARWIN_SORTED_INDEX if unique else DARWIN_INDEX, b"".join(
        (
            struct.pack(f"<{len(numbers) + 1}I", _ENTRY * len(symbols), *numbers),
            struct.pack("<I", len(names)),
            names,
        )
    )


def read_darwin_index(body: memoryview, *, wide: bool, where: str) -> list[tuple[str, int]]:
    """The inverse of :func:`darwin_index`; the arguments are those of :func:`read_gnu_index`.

    Raises:
        VerificationError: it is damaged.
    """
    what = "the archive's index"
    number = "Q" if wide else "I"
    cursor = Cursor(body, where)
    (size,) = cursor.unpack(number, what)
    rows = list(cursor.rows(2 * number, size // (2 * struct.calcsize(number)), what))
    (names_size,) = cursor.unpack(number, what)
    names = cursor.view(names_size, what)
    return [(c_string(names, name, what, where), offset) for name, offset in rows]
