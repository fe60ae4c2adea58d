"""An object file or shared object of any format that edgec knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from edgec.libraries import elf, macho, wasm
from edgec.libraries.cursor import damaged

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgec.libraries.members import Member

Image: TypeAlias = elf.Elf | macho.MachO | wasm.Wasm
"""Has, in all formats: ``format``, ``machine``, ``exported``, ``undefined``, ``needed``,
``index_names`` and ``read``; names are those that C sees."""


@dataclass(frozen=True)
class ObjectFile:
    """One file of machine code.

    Attributes:
        name: of the file in its archive, or of the file itself.
        data: all of it.
        image: what is in it.
    """

    name: str
    data: bytes
    image: Image


def is_object(data: bytes) -> bool:
    """Whether the bytes begin like an object file of a known format."""
    return data[:4] in {elf.MAGIC, macho.MAGIC, wasm.MAGIC}


def parse_image(data: bytes, where: str) -> Image:
    """Read an object file or shared object.

    Raises:
        VerificationError: the file is damaged, or of a format that edgec doesn't know.
    """
    if data[:4] == elf.MAGIC:
        return elf.Elf.parse(data, where)
    if data[:4] == macho.MAGIC:
        return macho.MachO.parse(data, where)
    if data[:4] == wasm.MAGIC:
        return wasm.Wasm.parse(data, where)
    raise damaged("this is neither ELF nor Mach-O nor WebAssembly", where)


def parse_objects(members: Iterable[Member], where: str) -> tuple[ObjectFile, ...]:
    """Read the object files of an archive; what isn't one is left out.

    Raises:
        VerificationError: one is damaged, there is none, or they are for different machines.
    """
    found = tuple(
        ObjectFile(name, data, parse_image(data, f"{where}({name})"))
        for name, data in members
        if is_object(data)
    )
    kinds = sorted({f"{o.image.format} {o.image.machine}" for o in found})
    if not kinds:
        raise damaged("there is no object file in it", where)
    if len(kinds) > 1:
        raise damaged(f"its object files are of different kinds: {' and '.join(kinds)}", where)
    return found
