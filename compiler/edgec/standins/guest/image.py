"""A shared object that the guest can load, of the machine code that a library holds."""

from __future__ import annotations

import struct
import subprocess
from typing import TYPE_CHECKING

from edgec.errors import VerificationError
from edgec.libraries.elf import Elf
from edgec.libraries.macho import MachO
from edgec.standins import toolbox
from edgec.standins.guest.macho_elf import to_elf

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.libraries.open import LibraryFile

_DYNAMIC_SEGMENT = 2
_ROW = struct.Struct("<qQ")
_NULL, _NEEDED, _STRING_TABLE = 0, 1, 5
_VERSION_TAGS = {0x6FFFFFF0, 0x6FFFFFFE, 0x6FFFFFFF}  # VERSYM, VERNEED, VERNEEDNUM
_IGNORED = 0x6000000E  # a tag of no meaning, from the range that operating systems may define


def loadable(library: LibraryFile) -> Path:
    """A shared object with the library's machine code, unchanged; the library itself if it can be.

    Raises:
        ToolchainError: there is no linker.
        VerificationError: the parts don't fit together.
        CacheError: the cache's folder can't be written.
    """
    if library.form == "elf-shared":
        return _without_foreign_needs(library)
    return _linked(library)


def _linked(library: LibraryFile) -> Path:
    linker = toolbox.lld()
    objects = [
        to_elf(item.image) if isinstance(item.image, MachO) else item.data
        for item in library.objects
    ]

    def build(target: Path) -> None:
        command = [
            linker,
            "-shared",
            "--hash-style=gnu",
            "--build-id=none",
            "-Bsymbolic",
            "-o",
            str(target),
        ]
        for number, data in enumerate(objects):
            path = target.with_name(f"{number}.o")
            path.write_bytes(data)
            command.append(str(path))
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise VerificationError(
                f"its objects can't be linked ({lines[0]})", where=str(library.path)
            )

    return toolbox.compiled(["image", toolbox.version(linker), *objects], build, "library.so")


def _without_foreign_needs(library: LibraryFile) -> Path:
    """The shared object; if it needs libraries of Android, a copy that doesn't ask for them.

    The guest has what they would give: the C library, mathematics and TVM's interface.
    """
    image = library.objects[0].image
    assert isinstance(image, Elf), library.form
    if not any(_is_foreign(name) for name in image.needed):
        return library.path
    patched = bytearray(image.data)
    offset, size = next(
        (segment.offset, segment.file_size)
        for segment in image.segments
        if segment.kind == _DYNAMIC_SEGMENT
    )
    names = iter(image.needed)
    for at in range(offset, offset + size, _ROW.size):
        tag, value = _ROW.unpack_from(patched, at)
        if tag == _NULL:
            break
        foreign = tag == _NEEDED and _is_foreign(next(names))
        # Versions of symbols name the libraries that are taken out.
        if foreign or tag & 0xFFFFFFFF in _VERSION_TAGS:
            _ROW.pack_into(patched, at, _IGNORED, value)
    return toolbox.compiled(
        ["patched image", bytes(patched)], lambda target: _write(target, patched), "library.so"
    )


def _is_foreign(name: str) -> bool:
    # On glibc every library of the system has a version after ".so"; on Android none has.
    return name.endswith(".so")


def _write(target: Path, data: bytearray) -> None:
    target.write_bytes(data)
