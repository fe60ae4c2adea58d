"""Write ELF object files for aarch64, for a linker to read."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QIIq")
_RELOCATABLE, _AARCH64 = 1, 183
_PROGBITS, _SYMTAB, _STRTAB, _RELA, _NOBITS, _INIT_ARRAY = 1, 2, 3, 4, 8, 14
_WRITE, _ALLOC, _EXECUTE, _INFO_LINK = 1, 2, 4, 0x40
_GLOBAL, _WEAK, _HIDDEN = 1, 2, 2


@dataclass(frozen=True)
class ElfRelocation:
    """A place that the linker fills in.

    Attributes:
        offset: in its section.
        kind: ELF's number for aarch64.
        symbol: index in the list of symbols.
        addend: what is added to the symbol's address.
    """

    offset: int
    kind: int
    symbol: int
    addend: int


@dataclass(frozen=True)
class ElfSection:
    """A section that is loaded.

    Attributes:
        name: as messages give it.
        data: its content; ignored if it is zero-filled.
        size: in bytes.
        alignment: in bytes.
        zero_filled: whether the file holds nothing of it.
        executable: whether it holds instructions.
        writable: whether it changes, if only when it is loaded.
        initializers: whether it holds pointers to functions that run when it is loaded.
        relocations: places in it.
    """

    name: str
    data: bytes
    size: int
    alignment: int
    zero_filled: bool
    executable: bool
    writable: bool
    initializers: bool
    relocations: tuple[ElfRelocation, ...]


@dataclass(frozen=True)
class ElfSymbol:
    """A symbol.

    Attributes:
        name: as C sees it.
        section: its section's place in the list, counted from one; zero if it isn't here.
        value: offset in its section.
        external: whether other object files see it.
        weak: whether another definition wins, or none is needed.
        hidden: whether it ends at the shared object.
    """

    name: str
    section: int
    value: int
    external: bool
    weak: bool
    hidden: bool


def write_object(sections: Sequence[ElfSection], symbols: Sequence[ElfSymbol]) -> bytes:
    """An object file for aarch64."""
    strings = _Strings()
    # Local symbols come first, after the empty one.
    order = sorted(range(len(symbols)), key=lambda n: symbols[n].external)
    places = {number: at for at, number in enumerate(order, 1)}
    local_count = 1 + sum(not symbol.external for symbol in symbols)
    table = bytes(_SYMBOL.size) + b"".join(
        _symbol_row(symbols[number], strings) for number in order
    )
    related = [(n, s) for n, s in enumerate(sections, 1) if s.relocations]
    symbol_table = 1 + len(sections) + len(related)
    out = bytearray(_HEADER.size)
    rows = [bytes(_SECTION.size)]
    for section in sections:
        offset = _put(out, b"" if section.zero_filled else section.data, section.alignment)
        rows.append(_section_row(section, strings, offset))
    for number, section in related:
        data = b"".join(
            _RELOCATION.pack(r.offset, r.kind, places[r.symbol], r.addend)
            for r in section.relocations
        )
        name = strings.add(f".rela{section.name}")
        offset = _put(out, data, 8)
        rows.append(
            _SECTION.pack(
                *(name, _RELA, _INFO_LINK, 0, offset, len(data)),
                *(symbol_table, number, 8, _RELOCATION.size),
            )
        )
    name, own = strings.add(".symtab"), strings.add(".strtab")
    offset = _put(out, table, 8)
    rows.append(
        _SECTION.pack(
            *(name, _SYMTAB, 0, 0, offset, len(table)),
            *(symbol_table + 1, local_count, 8, _SYMBOL.size),
        )
    )
    offset = _put(out, bytes(strings.data), 1)
    rows.append(_SECTION.pack(own, _STRTAB, 0, 0, offset, len(strings.data), 0, 0, 1, 0))
    start = _put(out, b"".join(rows), 8)
    identity = b"\x7fELF\x02\x01\x01"
    _HEADER.pack_into(
        *(out, 0, identity, _RELOCATABLE, _AARCH64, 1, 0, 0, start, 0, _HEADER.size),
        *(0, 0, _SECTION.size, len(rows), len(rows) - 1),
    )
    return bytes(out)


class _Strings:
    """A string table that grows."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")

    def add(self, text: str) -> int:
        if not text:
            return 0
        at = len(self.data)
        self.data += text.encode() + b"\0"
        return at


def _symbol_row(symbol: ElfSymbol, strings: _Strings) -> bytes:
    binding = (_WEAK if symbol.weak else _GLOBAL) if symbol.external else 0
    visibility = _HIDDEN if symbol.hidden and symbol.external else 0
    name = strings.add(symbol.name)
    return _SYMBOL.pack(name, binding << 4, visibility, symbol.section, symbol.value, 0)


def _section_row(section: ElfSection, strings: _Strings, offset: int) -> bytes:
    kind = _NOBITS if section.zero_filled else _PROGBITS
    if section.initializers:
        kind = _INIT_ARRAY
    flags = _ALLOC
    flags |= _WRITE if section.writable or section.initializers else 0
    flags |= _EXECUTE if section.executable else 0
    name = strings.add(".init_array" if section.initializers else section.name)
    return _SECTION.pack(name, kind, flags, 0, offset, section.size, 0, 0, section.alignment, 0)


def _put(out: bytearray, data: bytes, alignment: int) -> int:
    """Append, aligned; the offset where it begins."""
    out += bytes(-len(out) % max(alignment, 1))
    offset = len(out)
    out += data
    return offset
