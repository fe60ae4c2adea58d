"""Read 64-bit little-endian Mach-O files, relocations of object files included."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from edgec.libraries.cursor import Cursor, c_string, damaged, decode

MAGIC = b"\xcf\xfa\xed\xfe"
_KINDS = {1: "object", 2: "executable", 6: "shared", 8: "bundle"}
_MACHINES = {0x01000007: "x86_64", 0x0100000C: "aarch64", 0x0200000C: "arm64_32"}
_PLATFORMS = {
    1: "macos",
    2: "ios",
    3: "tvos",
    4: "watchos",
    6: "maccatalyst",
    7: "iossimulator",
    11: "visionos",
    12: "visionossimulator",
}
_SEGMENT, _SYMTAB, _DYLIBS, _BUILD_VERSION = 0x19, 0x2, (0xC, 0x80000018, 0x8000001F), 0x32
# Which platform a file is for, before there was LC_BUILD_VERSION.
_VERSION_MIN = {0x24: "macos", 0x25: "ios", 0x2F: "tvos", 0x30: "watchos"}
_SYMBOL_ROW = "IBBHQ"
_LARGEST_ALIGNMENT = 15  # the linker's own limit, as a power of two
_STAB, _PRIVATE, _TYPE, _EXTERNAL = 0xE0, 0x10, 0x0E, 0x01
_WEAK_REFERENCE, _WEAK_DEFINITION = 0x40, 0x80
_IN_SECTION, _ABSOLUTE = 0x0E, 0x02
_ZERO_FILLED = {0x01, 0x0C, 0x12}
_ARM64_RELOCATIONS = (
    "unsigned",
    "subtractor",
    "branch26",
    "page21",
    "pageoff12",
    "got_load_page21",
    "got_load_pageoff12",
    "pointer_to_got",
    "tlvp_load_page21",
    "tlvp_load_pageoff12",
    "addend",
    "authenticated_pointer",
)


@dataclass(frozen=True)
class MachORelocation:
    """One place in a section that a linker fills in.

    Attributes:
        offset: in its section.
        number: index of a symbol if ``external``, else of a section, counted from one; of the kind
            ``"addend"``: what is added by the relocation that follows, a signed number.
        external: see ``number``.
        relative: whether the place is filled with a distance from itself.
        size: of the place, in bytes.
        kind: for arm64 its name, such as ``"branch26"``; for other machines its number.
    """

    offset: int
    number: int
    external: bool
    relative: bool
    size: int
    kind: str


@dataclass(frozen=True)
class MachOSection:
    """One section.

    Attributes:
        segment: such as ``"__TEXT"``.
        name: such as ``"__text"``.
        address: in memory; object files place their sections one after the other from zero.
        size: in bytes.
        offset: in the file.
        alignment: in bytes.
        flags: Mach-O's, type and attributes.
        relocation_offset: of its relocations in the file.
        relocation_count: how many there are.
    """

    segment: str
    name: str
    address: int
    size: int
    offset: int
    alignment: int
    flags: int
    relocation_offset: int
    relocation_count: int

    @property
    def zero_filled(self) -> bool:
        """Whether it only takes memory."""
        return self.flags & 0xFF in _ZERO_FILLED


@dataclass(frozen=True)
class MachOSymbol:
    """One symbol.

    Attributes:
        name: as C sees it, without the underscore that Mach-O puts before it.
        linker_name: as it stands in the file.
        external: whether other object files see it.
        private: whether it is seen by object files that are linked together, and not beyond them.
        section: index of its section, counted from one; zero if it is in none.
        defined: whether it is here, and not asked of others.
        weak: whether another definition wins, or none is needed.
        value: an address; of an undefined symbol that isn't zero, the size of a common one.
    """

    name: str
    linker_name: str
    external: bool
    private: bool
    section: int
    defined: bool
    weak: bool
    value: int


@dataclass(frozen=True)
class MachO:
    """A Mach-O file.

    Attributes:
        where: names it in error messages.
        data: all of it.
        kind: ``"object"``, ``"shared"``, ``"bundle"``, ``"executable"``.
        machine: ``"aarch64"``, ``"x86_64"``, ....
        sections: in the order in which symbols and relocations count them, from one.
        platform: ``"ios"``, ``"macos"``, ...; empty if the file doesn't say.
        minimum_version: of the platform's system, such as ``"16.0"``; empty likewise.
        needed: the shared libraries that the dynamic linker loads with this one.
        symbol_table: offset and count of the symbols, offset and size of their names.
    """

    format: ClassVar[str] = "macho"

    where: str
    data: bytes
    kind: str
    machine: str
    sections: tuple[MachOSection, ...]
    platform: str
    minimum_version: str
    needed: tuple[str, ...]
    symbol_table: tuple[int, int, int, int]

    @staticmethod
    def parse(data: bytes, where: str) -> MachO:
        """Read the load commands; symbols and relocations are read when they are asked for.

        Raises:
            VerificationError: the file is damaged, or no 64-bit little-endian Mach-O file.
        """
        cursor = Cursor(data, where)
        if bytes(cursor.view(4, "the Mach-O header")) != MAGIC:
            raise damaged("this is no 64-bit little-endian Mach-O file", where)
        machine, _, kind, count, size, _, _ = cursor.unpack("7I", "the Mach-O header")
        commands = Cursor(cursor.view(size, "the load commands"), where)
        sections: list[MachOSection] = []
        platform = minimum = ""
        needed = []
        symbol_table = (0, 0, 0, 0)
        for _ in range(count):
            command, body = _command(commands)
            if command == _SEGMENT:
                sections += _sections(body)
            elif command == _SYMTAB:
                offset, number, strings, strings_size = body.unpack("4I", "the symbol table")
                symbol_table = (offset, number, strings, strings_size)
            elif command == _BUILD_VERSION:
                number, version = body.unpack("2I", "the build version")
                platform = _PLATFORMS.get(number, f"platform {number}")
                minimum = _version(version)
            elif command in _VERSION_MIN:
                platform = _VERSION_MIN[command]
                minimum = _version(body.u32("the minimum version"))
            elif command in _DYLIBS:
                needed.append(_library_name(body))
        return MachO(
            where,
            data,
            _KINDS.get(kind, f"type {kind}"),
            _MACHINES.get(machine, f"machine {machine:#x}"),
            tuple(sections),
            platform,
            minimum,
            tuple(needed),
            symbol_table,
        )

    def section_data(self, section: MachOSection) -> memoryview:
        """What a section holds; nothing if it only takes memory.

        Raises:
            VerificationError: it lies outside the file.
        """
        if section.zero_filled:
            return memoryview(b"")
        cursor = Cursor(self.data, self.where, section.offset)
        return cursor.view(section.size, f"the section {section.name}")

    def relocations(self, section: MachOSection) -> tuple[MachORelocation, ...]:
        """The places that a linker fills in, in the order of the file.

        Raises:
            VerificationError: they lie outside the file.
        """
        cursor = Cursor(self.data, self.where, section.relocation_offset)
        rows = cursor.rows("II", section.relocation_count, f"relocations of {section.name}")
        return tuple(self._relocation(offset, bits) for offset, bits in rows)

    @cached_property
    def symbols(self) -> tuple[MachOSymbol, ...]:
        """All symbols, those for debuggers included, as relocations count them.

        Raises:
            VerificationError: the table is damaged. The same holds for what is read from it below.
        """
        offset, count, strings_offset, strings_size = self.symbol_table
        if not count:
            return ()
        strings = Cursor(self.data, self.where, strings_offset).view(
            strings_size, "the string table"
        )
        rows = Cursor(self.data, self.where, offset).rows(_SYMBOL_ROW, count, "the symbol table")
        return tuple(self._symbol(strings, *row) for row in rows)

    @cached_property
    def exported(self) -> tuple[str, ...]:
        """Names of what others may use, sorted."""
        return tuple(sorted({s.name for s in self._linked if s.defined and not s.private}))

    @cached_property
    def undefined(self) -> tuple[str, ...]:
        """Names of what others must have, sorted; what is weak may stay without a definition."""
        return tuple(sorted({s.name for s in self._linked if not s.defined and not s.weak}))

    @cached_property
    def index_names(self) -> tuple[str, ...]:
        """The names by which an archive's index finds this object, in the order of its symbols."""
        return tuple(s.linker_name for s in self._linked if s.defined)

    def read(self, name: str) -> memoryview:
        """The file from the place of a symbol to the end of its section.

        Raises:
            VerificationError: there is no such symbol, or it lies outside the file.
        """
        symbol = next((s for s in self._linked if s.name == name and s.defined), None)
        if symbol is None:
            raise damaged(f"there is no symbol {name}", self.where)
        if 0 < symbol.section <= len(self.sections):
            section = self.sections[symbol.section - 1]
            held = self.section_data(section)
            if 0 <= symbol.value - section.address < len(held):
                return held[symbol.value - section.address :]
        raise damaged(f"the symbol {name} lies outside the file", self.where)

    @property
    def _linked(self) -> list[MachOSymbol]:
        """The symbols that take part in linking."""
        return [symbol for symbol in self.symbols if symbol.external and symbol.name]

    def _symbol(
        self, strings: memoryview, offset: int, bits: int, section: int, marks: int, value: int
    ) -> MachOSymbol:
        name = c_string(strings, offset, "a symbol's name", self.where) if offset else ""
        kind = bits & _TYPE
        debugs = bool(bits & _STAB)
        # A common symbol is written as an undefined one with a size.
        defined = kind in {_IN_SECTION, _ABSOLUTE} or (kind == 0 and value > 0)
        return MachOSymbol(
            name.removeprefix("_"),
            name,
            bool(bits & _EXTERNAL) and not debugs,
            bool(bits & _PRIVATE),
            section if kind == _IN_SECTION else 0,
            defined and not debugs,
            bool(marks & (_WEAK_DEFINITION if defined else _WEAK_REFERENCE)),
            value,
        )

    def _relocation(self, offset: int, bits: int) -> MachORelocation:
        if offset >> 31:
            raise damaged("a relocation is of the scattered kind of 32-bit files", self.where)
        number, kind = bits & 0xFFFFFF, bits >> 28
        name = str(kind)
        if self.machine == "aarch64":
            if kind >= len(_ARM64_RELOCATIONS):
                raise damaged(f"there is no relocation of the kind {kind}", self.where)
            name = _ARM64_RELOCATIONS[kind]
            if name == "addend":
                number -= (number & 0x800000) << 1
        return MachORelocation(
            offset,
            number,
            bool(bits >> 27 & 1),
            bool(bits >> 24 & 1),
            1 << (bits >> 25 & 3),
            name,
        )


def _command(commands: Cursor) -> tuple[int, Cursor]:
    """The next load command: its number, and what follows its size field."""
    command, size = commands.unpack("2I", "a load command")
    return command, Cursor(commands.view(size - 8, "a load command"), commands.where)


def _sections(body: Cursor) -> list[MachOSection]:
    body.view(56, "a segment")
    count, _ = body.unpack("2I", "a segment")
    found = []
    for _ in range(count):
        name = _fixed_name(body, "a section's name")
        segment = _fixed_name(body, "a segment's name")
        address, size, offset, alignment, place, relocations, flags, *_ = body.unpack(
            "2Q8I", "a section"
        )
        if alignment > _LARGEST_ALIGNMENT:
            raise damaged(f"the section {name} is aligned to 2^{alignment} bytes", body.where)
        found.append(
            MachOSection(
                segment, name, address, size, offset, 1 << alignment, flags, place, relocations
            )
        )
    return found


def _fixed_name(body: Cursor, what: str) -> str:
    return decode(bytes(body.view(16, what)).partition(b"\0")[0], what, body.where)


def _version(packed: int) -> str:
    """Three numbers in 16, 8 and 8 bits; the last is written if it isn't zero."""
    major, minor, patch = packed >> 16, packed >> 8 & 0xFF, packed & 0xFF
    return f"{major}.{minor}.{patch}" if patch else f"{major}.{minor}"


def _library_name(body: Cursor) -> str:
    # The offset counts from the command's begin, eight bytes before the body.
    offset = body.u32("a library's name") - 8
    if offset < 4:
        raise damaged("a library's name begins before its command", body.where)
    body.view(offset - 4, "a library's name")
    raw = bytes(body.view(body.left, "a library's name"))
    return decode(raw.partition(b"\0")[0], "a library's name", body.where)
