"""A Mach-O object file for arm64, rewritten as an ELF one with the same machine code.

What a linker is asked to do is the same in both formats, so iOS code can be linked for Linux and
run there: instructions and data stay as they are, and each relocation gets ELF's name for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.errors import VerificationError
from edgec.standins.guest.elf_object import (
    ElfRelocation,
    ElfSection,
    ElfSymbol,
    write_object,
)

if TYPE_CHECKING:
    from edgec.libraries.macho import MachO, MachORelocation, MachOSection

_DEBUG, _INSTRUCTIONS = 0x02000000, 0x80000400  # attributes of sections
_INITIALIZERS = 0x9  # type of a section with pointers to functions that run at load
_TYPE = 0xFF
_NOT_LOADED = {"__eh_frame", "__compact_unwind"}  # for unwinding, which nothing here does

_ABS64, _ABS32, _PREL64, _PREL32 = 257, 258, 260, 261
_PAGE, _ADD, _JUMP, _CALL, _GOT_PAGE, _GOT_LOAD = 275, 277, 282, 283, 311, 312
# Loads and stores by the number of bytes: how much their offset is scaled.
_LOAD_STORE = {1: 278, 2: 284, 4: 285, 8: 286, 16: 299}
_DIRECT = {"page21": _PAGE, "got_load_page21": _GOT_PAGE, "got_load_pageoff12": _GOT_LOAD}


@dataclass(frozen=True)
class _Place:
    """Where something of the Mach-O file is in the ELF one."""

    section: int
    offset: int


def to_elf(image: MachO) -> bytes:
    """The ELF object file.

    Raises:
        VerificationError: the file is for another machine, or holds what TVM doesn't write.
    """
    return _Conversion(image).run()


class _Conversion:
    def __init__(self, image: MachO) -> None:
        self._image = image
        # Sections count from one in both formats; those left out have no number.
        self._kept = [
            number
            for number, section in enumerate(image.sections, 1)
            if not section.flags & _DEBUG and section.name not in _NOT_LOADED
        ]
        self._numbers = {number: at for at, number in enumerate(self._kept, 1)}

    def run(self) -> bytes:
        image = self._image
        if (image.machine, image.kind) != ("aarch64", "object"):
            raise self._cannot(f"a file of the kind {image.kind} for {image.machine}")
        symbols = [self._symbol(number) for number in range(len(image.symbols))]
        # A place that is named by its section: after the symbols there is one per section.
        symbols += [
            ElfSymbol("", self._numbers[n], 0, external=False, weak=False, hidden=False)
            for n in self._kept
        ]
        sections = [self._section(image.sections[number - 1]) for number in self._kept]
        return write_object(sections, symbols)

    def _section(self, section: MachOSection) -> ElfSection:
        data = bytes(self._image.section_data(section))
        relocations = self._relocations(section, data)
        code = bool(section.flags & _INSTRUCTIONS)
        return ElfSection(
            name=f"{section.segment}.{section.name}",
            data=data,
            size=section.size,
            alignment=section.alignment,
            zero_filled=section.zero_filled,
            executable=code,
            # The dynamic linker fills in addresses.
            writable=not code and (section.segment != "__TEXT" or bool(relocations)),
            initializers=section.flags & _TYPE == _INITIALIZERS,
            relocations=relocations,
        )

    def _symbol(self, number: int) -> ElfSymbol:
        symbol = self._image.symbols[number]
        section = value = 0
        if symbol.section in self._numbers:
            place = self._at(symbol.section, symbol.value)
            section, value = place.section, place.offset
        elif symbol.defined and not symbol.section:
            raise self._cannot(f"the symbol {symbol.name}, which lies in no section")
        # One in a section that isn't loaded can't be referred to: relocations there are dropped.
        external = symbol.external and (bool(section) or not symbol.defined)
        return ElfSymbol(
            symbol.name, section, value, external=external, weak=symbol.weak, hidden=symbol.private
        )

    def _relocations(self, section: MachOSection, data: bytes) -> tuple[ElfRelocation, ...]:
        found = []
        addend = 0
        subtracted: MachORelocation | None = None
        for item in self._image.relocations(section):
            if item.kind == "addend":
                addend = item.number
                continue
            if item.kind == "subtractor":
                subtracted = item
                continue
            found.append(self._relocation(section, data, item, addend, subtracted))
            addend, subtracted = 0, None
        return tuple(found)

    def _relocation(
        self,
        section: MachOSection,
        data: bytes,
        item: MachORelocation,
        addend: int,
        subtracted: MachORelocation | None,
    ) -> ElfRelocation:
        held = int.from_bytes(data[item.offset : item.offset + item.size], "little", signed=True)
        symbol = item.number
        if not item.external:
            # What is held is an address in the file's own space.
            place = self._at(item.number, 0)
            symbol = len(self._image.symbols) + place.section - 1
            addend += place.offset
        if item.kind == "unsigned":
            kind = {8: _ABS64, 4: _ABS32}.get(item.size, 0)
            addend += held
            if subtracted is not None:
                kind = {8: _PREL64, 4: _PREL32}.get(item.size, 0)
                addend += item.offset - self._offset_of(section, subtracted)
        elif item.kind == "branch26":
            kind = _CALL if held >> 31 & 1 else _JUMP
        elif item.kind == "pageoff12":
            kind = _scaled(held)
        else:
            kind = _DIRECT.get(item.kind, 0)
        if not kind:
            raise self._cannot(f"a relocation of the kind {item.kind} and {item.size} bytes")
        return ElfRelocation(item.offset, kind, symbol, addend)

    def _offset_of(self, section: MachOSection, item: MachORelocation) -> int:
        """Where in a section the symbol is that a distance is measured from."""
        symbol = self._image.symbols[item.number] if item.external else None
        if symbol is None or self._image.sections[symbol.section - 1] != section:
            raise self._cannot("a distance from another section")
        return symbol.value - section.address

    def _at(self, number: int, address: int) -> _Place:
        if number not in self._numbers:
            raise self._cannot("an address in a section that isn't loaded")
        return _Place(self._numbers[number], address - self._image.sections[number - 1].address)

    def _cannot(self, what: str) -> VerificationError:
        return VerificationError(f"iOS code can't be run here: {what}", where=self._image.where)


def _scaled(instruction: int) -> int:
    """The relocation for the low bits of an address, by the instruction that uses them."""
    if instruction & 0x1F000000 == 0x11000000:  # ADD, immediate
        return _ADD
    if instruction & 0x3B000000 != 0x39000000:  # load or store, unsigned offset
        return 0
    size = 1 << (instruction >> 30 & 3)
    if size == 1 and instruction & 0x04800000 == 0x04800000:  # a whole vector register
        size = 16
    return _LOAD_STORE[size]
