"""Static archives: written so that equal members give equal bytes, with the index linkers need.

Two flavours. GNU's (Linux, Android): index ``/``, long names in ``//``. Darwin's (iOS, macOS):
index ``__.SYMDEF``, names before the data, everything at multiples of eight bytes, because ld64
maps 64-bit objects in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from edgec.errors import BuildError
from edgec.libraries.arindex import (
    DARWIN_INDEX,
    darwin_index,
    gnu_index,
    read_darwin_index,
    read_gnu_index,
)
from edgec.libraries.cursor import Cursor, damaged, decode
from edgec.libraries.members import Member
from edgec.libraries.objects import is_object, parse_image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Flavour: TypeAlias = Literal["gnu", "darwin"]

MAGIC = b"!<arch>\n"
_HEADER = 60
_END = b"`\n"
_NAME_FIELD = 16
_LARGEST = 1 << 32


@dataclass(frozen=True)
class Archive:
    """A static archive.

    Attributes:
        flavour: ``"gnu"`` or ``"darwin"``.
        members: in order, the index not among them. Members of Darwin archives whose size isn't a
            multiple of eight come back with the newlines that fill them up.
        index: symbols by which linkers find members, and the position of each one's member.
    """

    flavour: Flavour
    members: tuple[Member, ...]
    index: tuple[tuple[str, int], ...]

    @staticmethod
    def parse(data: bytes, where: str) -> Archive:
        """Read an archive.

        Raises:
            VerificationError: it is damaged.
        """
        cursor = Cursor(data, where)
        if bytes(cursor.view(len(MAGIC), "the archive's first line")) != MAGIC:
            raise damaged("this is no static archive", where)
        flavour: Flavour = "gnu"
        members: list[Member] = []
        positions: dict[int, int] = {}
        symbols: list[tuple[str, int]] = []
        long_names = b""
        while cursor.left:
            offset = cursor.offset
            raw, body = _entry(cursor)
            if raw.startswith(b"#1/"):
                flavour = "darwin"
                name, body = _name_before_data(raw, body, where)
            elif raw == b"//":
                long_names = bytes(body)
                continue
            elif raw in {b"/", b"/SYM64/"}:
                symbols = read_gnu_index(body, wide=raw != b"/", where=where)
                continue
            else:
                name = decode(_gnu_name(raw, long_names, where), "a member's name", where)
            if name.startswith(DARWIN_INDEX):
                symbols = read_darwin_index(body, wide="_64" in name, where=where)
                continue
            positions[offset] = len(members)
            members.append(Member(name, bytes(body)))
        return Archive(flavour, tuple(members), _resolved(symbols, positions, where))


def build_archive(members: Sequence[Member], flavour: Flavour) -> bytes:
    """A static archive: no times, no owners, mode 0644, and an index of its objects' symbols.

    Args:
        members: in the order in which they are written; what isn't an object file has no symbols.
        flavour: ``"gnu"`` for Linux and Android, ``"darwin"`` for iOS and macOS.

    Raises:
        BuildError: a name can't be written, or all is more than 4 GiB.
        VerificationError: an object file is damaged.
    """
    for name, _ in members:
        if not name.isprintable() or name != name.strip() or not name or _reserved(name):
            raise BuildError(f"an archive can't hold a file of the name {name!r}", where="archive")
    symbols = [
        (symbol, position)
        for position, (name, data) in enumerate(members)
        if is_object(data)
        for symbol in parse_image(data, name).index_names
    ]
    index_of = _gnu_index if flavour == "gnu" else _darwin_index
    names, entries = _gnu_entries(members)
    if flavour == "darwin":
        names, entries = b"", [_darwin_entry(name, data) for name, data in members]
    # The size of the index doesn't depend on the offsets in it.
    offset = len(MAGIC) + len(index_of([(symbol, 0) for symbol, _ in symbols])) + len(names)
    offsets = []
    for entry in entries:
        offsets.append(offset)
        offset += len(entry)
    if offset >= _LARGEST:
        raise BuildError("the archive would be larger than 4 GiB", where="archive")
    index = index_of([(symbol, offsets[position]) for symbol, position in symbols])
    return b"".join((MAGIC, index, names, *entries))


def _reserved(name: str) -> bool:
    return "/" in name or name.startswith(DARWIN_INDEX)


def _entry_bytes(field: bytes, body: bytes, mode: bytes = b"644") -> bytes:
    """Name, time, owner, group, mode, size, end; then what the entry holds."""
    header = b"%-16b%-12d%-6d%-6d%-8b%-10d`\n" % (field, 0, 0, 0, mode, len(body))
    return header + body + b"\n" * (len(body) % 2)


def _gnu_index(symbols: Sequence[tuple[str, int]]) -> bytes:
    return _entry_bytes(b"/", gnu_index(symbols), b"0")


def _darwin_index(symbols: Sequence[tuple[str, int]]) -> bytes:
    return _darwin_entry(*darwin_index(symbols), b"0")


def _darwin_entry(name: str, body: bytes, mode: bytes = b"644") -> bytes:
    """An entry whose data begins and ends at multiples of eight bytes, if the entry does."""
    before = name.encode()
    before += bytes(-(_HEADER + len(before)) % 8)
    return _entry_bytes(b"#1/%d" % len(before), before + body + b"\n" * (-len(body) % 8), mode)


def _gnu_entries(members: Sequence[Member]) -> tuple[bytes, list[bytes]]:
    """The table of long names, empty if there are none, and the entries."""
    table = b""
    entries = []
    for name, body in members:
        field = f"{name}/".encode()
        if len(field) > _NAME_FIELD:
            field, table = b"/%d" % len(table), table + field + b"\n"
        entries.append(_entry_bytes(field, body))
    if table:
        table += b"\n" * (len(table) % 2)
        table = b"%-48b%-10d`\n" % (b"//", len(table)) + table
    return table, entries


def _entry(cursor: Cursor) -> tuple[bytes, memoryview]:
    """The next entry: its name's field, and what it holds."""
    header = bytes(cursor.view(_HEADER, "a member's header"))
    size = header[48:58].rstrip(b" ")
    if header[58:] != _END or not size.isdigit():
        raise damaged(f"the member's header before byte {cursor.offset} is damaged", cursor.where)
    body = cursor.view(int(size), "a member")
    # Some writers leave out the newline after the last member.
    cursor.view(min(len(body) % 2, cursor.left), "a member")
    return header[:16].rstrip(b" "), body


def _name_before_data(raw: bytes, body: memoryview, where: str) -> tuple[str, memoryview]:
    digits = raw[3:]
    if not digits.isdigit() or int(digits) > len(body):
        raise damaged("the length of a member's name is damaged", where)
    name = bytes(body[: int(digits)]).rstrip(b"\0")
    return decode(name, "a member's name", where), body[int(digits) :]


def _gnu_name(raw: bytes, long_names: bytes, where: str) -> bytes:
    if not raw.startswith(b"/"):
        return raw.removesuffix(b"/")
    digits = raw[1:]
    if not digits.isdigit() or int(digits) >= len(long_names):
        raise damaged("a member's name lies outside the table of names", where)
    name, end, _ = long_names[int(digits) :].partition(b"/\n")
    if not end:
        raise damaged("a member's name does not end in the table of names", where)
    return name


def _resolved(
    symbols: Sequence[tuple[str, int]], positions: Mapping[int, int], where: str
) -> tuple[tuple[str, int], ...]:
    for symbol, offset in symbols:
        if offset not in positions:
            raise damaged(f"the index says that {symbol} is where no member begins", where)
    return tuple((symbol, positions[offset]) for symbol, offset in symbols)
