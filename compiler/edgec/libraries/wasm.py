"""Read WebAssembly modules: what they export and import, and the memory that they begin with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from edgec.libraries.cursor import Cursor, damaged, decode

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"\0asm"
_VERSION = 1
_CUSTOM, _IMPORTS, _GLOBALS, _EXPORTS, _DATA = 0, 2, 6, 7, 11
_KINDS = ("function", "table", "memory", "global", "tag")
# Of a relocatable object: what linkers read.
_LINKING = "linking"
# Of expressions, those instructions that a linker writes for an address.
_END, _GET_GLOBAL, _I32, _I64 = 0x0B, 0x23, 0x41, 0x42
_CONSTANTS = {_I32: 32, _I64: 64}
_ACTIVE, _PASSIVE, _ACTIVE_IN = 0, 1, 2
_MORE, _SIGN, _PAYLOAD = 0x80, 0x40, 7
# A bound on the zeros between segments, which optimizers leave out of the file: a hostile file
# could else have a memory of 4 GiB.
_MOST_ZEROS = 1 << 24
# A bound here too, without which a text of nothing but beginnings would be searched for hours.
_NAME = rb"[A-Za-z0-9_.$]{1,1024}+(?=\0)"


@dataclass(frozen=True)
class WasmImport:
    """What a module asks of its surroundings.

    Attributes:
        module: such as ``"env"``.
        name: in that module.
        kind: ``"function"``, ``"table"``, ``"memory"``, ``"global"`` or ``"tag"``.
    """

    module: str
    name: str
    kind: str


@dataclass(frozen=True)
class WasmExport:
    """What a module offers.

    Attributes:
        name: under which it is found.
        kind: as of imports.
        index: among all of the kind, the imported ones first.
    """

    name: str
    kind: str
    index: int


@dataclass(frozen=True)
class WasmSegment:
    """Bytes that are in memory when a module starts.

    Attributes:
        address: of the first.
        data: the bytes.
    """

    address: int
    data: memoryview


@dataclass(frozen=True)
class Wasm:
    """A WebAssembly module with a memory of 32-bit addresses.

    Attributes:
        where: names it in error messages.
        data: all of it.
        kind: ``"module"``, or ``"object"`` for what is still to be linked.
        imports: in order.
        exports: in order.
        globals: values of those defined here, in order; None if no constant.
        segments: in order of their addresses; those that only code places aren't among them.
    """

    format: ClassVar[str] = "wasm"
    machine: ClassVar[str] = "wasm32"
    # What the images of other formats have too: nobody links a module, or indexes it.
    symbols: ClassVar[tuple[()]] = ()
    needed: ClassVar[tuple[str, ...]] = ()
    index_names: ClassVar[tuple[str, ...]] = ()

    where: str
    data: bytes
    kind: str
    imports: tuple[WasmImport, ...]
    exports: tuple[WasmExport, ...]
    globals: tuple[int | None, ...]
    segments: tuple[WasmSegment, ...]

    @staticmethod
    def parse(data: bytes, where: str) -> Wasm:
        """Read the tables of a module; code isn't looked at.

        Raises:
            VerificationError: the file is damaged, or no module of version 1.
        """
        cursor = Cursor(data, where)
        if bytes(cursor.view(4, "the header")) != MAGIC:
            raise damaged("this is no WebAssembly module", where)
        if (version := cursor.u32("the header")) != _VERSION:
            raise damaged(f"WebAssembly of the version {version} can't be read", where)
        sections: dict[int, Cursor] = {}
        kind = "module"
        while cursor.left:
            (number,) = cursor.unpack("B", "a section")
            body = Cursor(cursor.view(_unsigned(cursor, "a section"), "a section"), where)
            if number == _CUSTOM:
                kind = "object" if _name(body, "a section's name") == _LINKING else kind
            elif number in sections:
                raise damaged(f"the section {number} is there twice", where)
            else:
                sections[number] = body
        return Wasm(
            where,
            data,
            kind,
            tuple(_imports(sections.get(_IMPORTS))),
            tuple(_exports(sections.get(_EXPORTS))),
            tuple(_globals(sections.get(_GLOBALS))),
            tuple(sorted(_segments(sections.get(_DATA)), key=lambda segment: segment.address)),
        )

    @cached_property
    def exported(self) -> tuple[str, ...]:
        """Names of what others may use, sorted."""
        return tuple(sorted({item.name for item in self.exports}))

    @cached_property
    def undefined(self) -> tuple[str, ...]:
        """Names of what the surroundings must have, each after its module's and a dot, sorted."""
        return tuple(sorted({f"{item.module}.{item.name}" for item in self.imports}))

    def read(self, name: str) -> memoryview:
        """The memory from the address that an exported global holds, as far as it is in the file.

        Raises:
            VerificationError: there is no such global, or nothing is at its address.
        """
        end = self._address(name)
        parts: list[memoryview | bytes] = []
        left = _MOST_ZEROS
        for segment in self.segments:
            if segment.address + len(segment.data) <= end:
                continue
            gap = max(0, segment.address - end)
            if gap > left or (gap and not parts):
                break
            left -= gap
            parts += [bytes(gap), segment.data[max(0, end - segment.address) :]]
            end = segment.address + len(segment.data)
        if not parts:
            raise damaged(f"the symbol {name} lies outside the data", self.where)
        return memoryview(b"".join(parts))

    def strings(self, start: str) -> frozenset[str]:
        """The texts in memory that begin so and go on with an identifier, up to a zero byte."""
        pattern = re.compile(re.escape(start.encode()) + _NAME)
        return frozenset(
            found.decode() for segment in self.segments for found in pattern.findall(segment.data)
        )

    def _address(self, name: str) -> int:
        found = [e for e in self.exports if e.name == name and e.kind == "global"]
        if not found:
            raise damaged(f"there is no symbol {name}", self.where)
        imported = sum(item.kind == "global" for item in self.imports)
        place = found[0].index - imported
        value = self.globals[place] if 0 <= place < len(self.globals) else None
        if value is None:
            raise damaged(f"the address of {name} is no constant", self.where)
        return value


def _unsigned(cursor: Cursor, what: str) -> int:
    """A number of at most 32 bits in groups of seven, the lowest first."""
    return _leb(cursor, 32, what)[0]


def _signed(cursor: Cursor, bits: int, what: str) -> int:
    """A number in groups of seven, the lowest first, whose last group holds its sign."""
    value, size, last = _leb(cursor, bits, what)
    return value - (1 << size) if last & _SIGN else value


def _leb(cursor: Cursor, bits: int, what: str) -> tuple[int, int, int]:
    """The groups put together, how many bits they have, and the last one."""
    value = 0
    for shift in range(0, bits, _PAYLOAD):
        (byte,) = cursor.unpack("B", what)
        value |= (byte & ~_MORE) << shift
        if not byte & _MORE:
            return value, shift + _PAYLOAD, byte
    raise damaged(f"a number in {what} is too long", cursor.where)


def _name(cursor: Cursor, what: str) -> str:
    return decode(cursor.view(_unsigned(cursor, what), what), what, cursor.where)


def _rows(cursor: Cursor | None, what: str) -> Iterator[Cursor]:
    """The cursor once for each row of a section, which has to end after the last."""
    if cursor is None:
        return
    for _ in range(_unsigned(cursor, what)):
        yield cursor
    cursor.finish(f"the last of {what}")


def _kind(cursor: Cursor, what: str) -> str:
    (number,) = cursor.unpack("B", what)
    if number >= len(_KINDS):
        raise damaged(f"there is no kind {number} in {what}", cursor.where)
    return _KINDS[number]


def _imports(section: Cursor | None) -> Iterator[WasmImport]:
    what = "the imports"
    for cursor in _rows(section, what):
        module, name, kind = _name(cursor, what), _name(cursor, what), _kind(cursor, what)
        if kind in {"function", "tag"}:
            cursor.view(kind == "tag", what)
            _unsigned(cursor, what)
        elif kind == "global":
            cursor.view(2, what)  # type, whether it changes
        else:
            cursor.view(kind == "table", what)  # type
            _limits(cursor, what)
        yield WasmImport(module, name, kind)


def _limits(cursor: Cursor, what: str) -> None:
    (flags,) = cursor.unpack("B", what)
    for _ in range(1 + (flags & 1)):
        _leb(cursor, 64, what)


def _exports(section: Cursor | None) -> Iterator[WasmExport]:
    what = "the exports"
    for cursor in _rows(section, what):
        name, kind = _name(cursor, what), _kind(cursor, what)
        yield WasmExport(name, kind, _unsigned(cursor, what))


def _globals(section: Cursor | None) -> Iterator[int | None]:
    what = "the globals"
    for cursor in _rows(section, what):
        cursor.view(2, what)  # type, whether it changes
        yield _expression(cursor, what)


def _segments(section: Cursor | None) -> Iterator[WasmSegment]:
    what = "the data"
    for cursor in _rows(section, what):
        mode = _unsigned(cursor, what)
        if mode > _ACTIVE_IN:
            raise damaged(f"there is no kind {mode} in {what}", cursor.where)
        memory = _unsigned(cursor, what) if mode == _ACTIVE_IN else 0
        address = _expression(cursor, what) if mode != _PASSIVE else None
        held = cursor.view(_unsigned(cursor, what), what)
        if address is not None and not memory:
            yield WasmSegment(address, held)


def _expression(cursor: Cursor, what: str) -> int | None:
    """A constant address; None where another instruction gives it."""
    (instruction,) = cursor.unpack("B", what)
    value = None
    if instruction in _CONSTANTS:
        value = _signed(cursor, _CONSTANTS[instruction], what) & 0xFFFFFFFF
    elif instruction == _GET_GLOBAL:
        _unsigned(cursor, what)
    else:
        # Floating-point constants of globals, references to functions.
        cursor.view(_OPERANDS.get(instruction, 0), what)
        if instruction == _REFERENCE:
            _unsigned(cursor, what)
    (end,) = cursor.unpack("B", what)
    if end != _END:
        raise damaged(f"an expression in {what} is longer than linkers write them", cursor.where)
    return value


_REFERENCE = 0xD2
# Bytes after f32.const, f64.const and ref.null.
_OPERANDS = {0x43: 4, 0x44: 8, 0xD0: 1}
