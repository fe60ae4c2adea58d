"""Read 64-bit little-endian ELF files: object files and shared objects."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from edgec.libraries.cursor import Cursor, c_string, damaged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAGIC = b"\x7fELF"
_64_BIT, _LITTLE_ENDIAN = 2, 1
_KINDS = {1: "object", 2: "executable", 3: "shared"}
_MACHINES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}
_BINDINGS = {0: "local", 1: "global", 2: "weak", 10: "unique"}
_SYMBOL_KINDS = {
    0: "notype",
    1: "object",
    2: "func",
    3: "section",
    4: "file",
    5: "common",
    6: "tls",
    10: "ifunc",
}
_VISIBILITIES = ("default", "internal", "hidden", "protected")
_SECTION_ROW, _SEGMENT_ROW, _SYMBOL_ROW, _DYNAMIC_ROW = "IIQQQQIIQQ", "IIQQQQQQ", "IBBHQQ", "qQ"
_SYMTAB, _DYNAMIC_SECTION, _NOBITS, _DYNSYM = 2, 6, 8, 11
_LOAD, _GNU_STACK = 1, 0x6474E551
_EXECUTABLE = 1
_NULL, _NEEDED, _SONAME, _RPATH, _TEXTREL, _RUNPATH, _FLAGS = 0, 1, 14, 15, 22, 29, 30
_DF_TEXTREL = 4
UNDEFINED, ABSOLUTE, COMMON = 0, 0xFFF1, 0xFFF2
_RESERVED_SECTIONS = 0xFF00


@dataclass(frozen=True)
class ElfSection:
    """One section.

    Attributes:
        name: such as ``".text"``.
        kind: ELF's ``sh_type``.
        flags: ELF's ``sh_flags``.
        address: in memory; zero in object files.
        offset: in the file.
        size: in bytes.
        link: index of another section: of a symbol table, its strings.
        alignment: in bytes; zero and one mean none.
        entry_size: of a table's entries, in bytes.
    """

    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    alignment: int
    entry_size: int


@dataclass(frozen=True)
class ElfSegment:
    """One program header.

    Attributes:
        kind: ELF's ``p_type``; 1 is LOAD.
        flags: 1 executable, 2 writable, 4 readable.
        offset: in the file.
        address: in memory.
        file_size: in bytes.
        memory_size: in bytes, not less than ``file_size``.
        alignment: in bytes.
    """

    kind: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int
    alignment: int


@dataclass(frozen=True)
class ElfSymbol:
    """One symbol.

    Attributes:
        name: as C sees it.
        binding: ``"local"``, ``"global"``, ``"weak"``, ``"unique"``.
        kind: ``"notype"``, ``"object"``, ``"func"``, ``"section"``, ``"file"``, ....
        visibility: ``"default"``, ``"internal"``, ``"hidden"``, ``"protected"``.
        section: index of its section, or a reserved one: ``UNDEFINED``, ``ABSOLUTE``, ``COMMON``.
        value: an address; in object files an offset in its section.
        size: in bytes; zero if unknown.
    """

    name: str
    binding: str
    kind: str
    visibility: str
    section: int
    value: int
    size: int

    @property
    def external(self) -> bool:
        """Whether other object files see it."""
        return self.binding != "local"

    @property
    def defined(self) -> bool:
        """Whether it is here, and not asked of others."""
        return self.section != UNDEFINED


@dataclass(frozen=True)
class Elf:
    """An ELF file.

    Attributes:
        where: names it in error messages.
        data: all of it.
        kind: ``"object"``, ``"shared"``, ``"executable"``.
        machine: ``"aarch64"``, ``"x86_64"``, ...; ``"machine 7"`` for those without a name here.
        flags: ELF's ``e_flags``.
        sections: the first is the empty one that ELF prescribes.
        segments: none in object files.
    """

    format: ClassVar[str] = "elf"

    where: str
    data: bytes
    kind: str
    machine: str
    flags: int
    sections: tuple[ElfSection, ...]
    segments: tuple[ElfSegment, ...]

    @staticmethod
    def parse(data: bytes, where: str) -> Elf:
        """Read headers; symbols are read when they are asked for.

        Raises:
            VerificationError: the file is damaged, or no 64-bit little-endian ELF file.
        """
        cursor = Cursor(data, where)
        if bytes(cursor.view(4, "the ELF header")) != MAGIC:
            raise damaged("this is no ELF file", where)
        bits, order = cursor.unpack("BB10x", "the ELF header")
        if (bits, order) != (_64_BIT, _LITTLE_ENDIAN):
            raise damaged("only 64-bit little-endian ELF files can be read", where)
        (kind, machine, _, _, segment_table, section_table, flags, _, *counts) = cursor.unpack(
            "HHIQQQIHHHHHH", "the ELF header"
        )
        segment_size, segment_count, section_size, section_count, names = counts
        return Elf(
            where,
            data,
            _KINDS.get(kind, f"type {kind}"),
            _MACHINES.get(machine, f"machine {machine}"),
            flags,
            _sections(data, where, section_table, section_size, section_count, names),
            _segments(data, where, segment_table, segment_size, segment_count),
        )

    def section_data(self, section: ElfSection) -> memoryview:
        """What a section holds; nothing if it only takes memory.

        Raises:
            VerificationError: it lies outside the file.
        """
        if section.kind == _NOBITS:
            return memoryview(b"")
        return Cursor(self.data, self.where, section.offset).view(
            section.size, f"the section {section.name}"
        )

    @cached_property
    def symbols(self) -> tuple[ElfSymbol, ...]:
        """The full symbol table; empty if the file is stripped.

        Raises:
            VerificationError: it is damaged. The same holds for what is read from it below.
        """
        return self._symbols_of(_SYMTAB)

    @cached_property
    def dynamic_symbols(self) -> tuple[ElfSymbol, ...]:
        """What the dynamic linker sees."""
        return self._symbols_of(_DYNSYM)

    @cached_property
    def dynamic(self) -> tuple[tuple[int, int], ...]:
        """Tags and values of the dynamic section."""
        found = []
        for section in self._only(_DYNAMIC_SECTION):
            for tag, value in self._table(section, _DYNAMIC_ROW):
                if tag == _NULL:
                    break
                found.append((tag, value))
        return tuple(found)

    @cached_property
    def needed(self) -> tuple[str, ...]:
        """The shared objects that the dynamic linker loads with this one."""
        return self._dynamic_strings(_NEEDED)

    @cached_property
    def soname(self) -> str:
        """The name under which others need this one; empty if it has none."""
        return next(iter(self._dynamic_strings(_SONAME)), "")

    @cached_property
    def search_paths(self) -> tuple[str, ...]:
        """RPATH and RUNPATH."""
        return self._dynamic_strings(_RPATH) + self._dynamic_strings(_RUNPATH)

    @property
    def writes_text(self) -> bool:
        """Whether the dynamic linker would have to write into code, which Android refuses."""
        tags = dict(self.dynamic)
        return _TEXTREL in tags or bool(tags.get(_FLAGS, 0) & _DF_TEXTREL)

    @property
    def executable_stack(self) -> bool:
        """Whether it asks for a stack that can be executed."""
        return any(s.kind == _GNU_STACK and s.flags & _EXECUTABLE for s in self.segments)

    @property
    def load_alignment(self) -> int:
        """The smallest alignment of the LOAD segments in bytes; zero if there are none."""
        return min((s.alignment for s in self.segments if s.kind == _LOAD), default=0)

    @cached_property
    def exported(self) -> tuple[str, ...]:
        """Names of what others may use, sorted."""
        visible = (s for s in self._linked if s.visibility in {"default", "protected"})
        return tuple(sorted({s.name for s in visible if s.defined}))

    @cached_property
    def undefined(self) -> tuple[str, ...]:
        """Names of what others must have, sorted; what is weak may stay without a definition."""
        return tuple(
            sorted({s.name for s in self._linked if not s.defined and s.binding != "weak"})
        )

    @cached_property
    def index_names(self) -> tuple[str, ...]:
        """The names by which an archive's index finds this object, in the order of its symbols."""
        return tuple(s.name for s in self.symbols if s.external and s.defined and s.name)

    def read(self, name: str) -> memoryview:
        """The file from the place of a symbol to the end of its section or segment.

        Raises:
            VerificationError: there is no such symbol, or it lies outside the file.
        """
        symbol = next((s for s in self._linked if s.name == name and s.defined), None)
        if symbol is None:
            raise damaged(f"there is no symbol {name}", self.where)
        for base, held in self._places(symbol):
            if 0 <= symbol.value - base < len(held):
                return held[symbol.value - base :]
        raise damaged(f"the symbol {name} lies outside the file", self.where)

    @property
    def _linked(self) -> Sequence[ElfSymbol]:
        """The symbols that take part in linking."""
        table = self.symbols if self.kind == "object" else self.dynamic_symbols
        return [symbol for symbol in table if symbol.external and symbol.name]

    def _places(self, symbol: ElfSymbol) -> Iterator[tuple[int, memoryview]]:
        """Addresses, and what lies there."""
        if self.kind == "object":
            if symbol.section < min(len(self.sections), _RESERVED_SECTIONS):
                yield 0, self.section_data(self.sections[symbol.section])
            return
        for segment in self.segments:
            if segment.kind == _LOAD:
                cursor = Cursor(self.data, self.where, segment.offset)
                yield segment.address, cursor.view(segment.file_size, "a LOAD segment")

    def _only(self, kind: int) -> Sequence[ElfSection]:
        """The section of a kind that ELF allows once, if it is there."""
        found = [section for section in self.sections if section.kind == kind]
        if len(found) > 1:
            raise damaged(f"there are {len(found)} sections of the kind {kind}", self.where)
        return found

    def _table(self, section: ElfSection, layout: str) -> Iterator[tuple[int, ...]]:
        held = self.section_data(section)
        cursor = Cursor(held, self.where)
        rows = len(held) // _row_size(layout)
        return cursor.rows(layout, rows, f"the section {section.name}")

    def _strings(self, section: ElfSection) -> memoryview:
        """The string table that another section refers to."""
        if section.link >= len(self.sections):
            raise damaged(f"the section {section.name} has no string table", self.where)
        return self.section_data(self.sections[section.link])

    def _symbols_of(self, kind: int) -> tuple[ElfSymbol, ...]:
        found = []
        for section in self._only(kind):
            strings = self._strings(section)
            for name, info, other, index, value, size in self._table(section, _SYMBOL_ROW):
                found.append(
                    ElfSymbol(
                        c_string(strings, name, "a symbol's name", self.where) if name else "",
                        _BINDINGS.get(info >> 4, f"binding {info >> 4}"),
                        _SYMBOL_KINDS.get(info & 15, f"type {info & 15}"),
                        _VISIBILITIES[other & 3],
                        index,
                        value,
                        size,
                    )
                )
        return tuple(found)

    def _dynamic_strings(self, tag: int) -> tuple[str, ...]:
        offsets = [value for found, value in self.dynamic if found == tag]
        if not offsets:
            return ()
        strings = self._strings(*self._only(_DYNAMIC_SECTION))
        return tuple(c_string(strings, o, "a dynamic string", self.where) for o in offsets)


def _row_size(layout: str) -> int:
    return struct.calcsize(f"<{layout}")


def _sections(
    data: bytes, where: str, table: int, size: int, count: int, names: int
) -> tuple[ElfSection, ...]:
    if not table:
        raise damaged("there are no section headers, so symbols can't be listed", where)
    if size != _row_size(_SECTION_ROW):
        raise damaged(f"section headers should not have {size} bytes", where)
    what = "the section headers"
    first = Cursor(data, where, table).unpack(_SECTION_ROW, what)
    # Files with very many sections keep these two numbers in the first section's header.
    count = count or first[5]
    names = first[6] if names == 0xFFFF else names
    rows = list(Cursor(data, where, table).rows(_SECTION_ROW, count, what))
    if names >= len(rows):
        raise damaged("there are no names of sections", where)
    offset, length = rows[names][4:6]
    strings = Cursor(data, where, offset).view(length, "the names of sections")
    return tuple(
        ElfSection(
            c_string(strings, name, "a section's name", where) if name else "",
            kind,
            flags,
            address,
            offset,
            size,
            link,
            alignment,
            entry_size,
        )
        for name, kind, flags, address, offset, size, link, _, alignment, entry_size in rows
    )


def _segments(data: bytes, where: str, table: int, size: int, count: int) -> tuple[ElfSegment, ...]:
    if not count:
        return ()
    if size != _row_size(_SEGMENT_ROW):
        raise damaged(f"program headers should not have {size} bytes", where)
    rows = Cursor(data, where, table).rows(_SEGMENT_ROW, count, "the program headers")
    return tuple(
        ElfSegment(kind, flags, offset, address, file_size, memory_size, alignment)
        for kind, flags, offset, address, _, file_size, memory_size, alignment in rows
    )
