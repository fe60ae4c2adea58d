"""Link a shared library, without the C library of the device if the linker knows none."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgec.emitters.c_library import LIBRARIES
from edgec.errors import BuildError
from edgec.libraries.members import Member
from edgec.libraries.objects import parse_image
from edgec.libraries.open import BLOB_SYMBOL, FUNCTION_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgec.emitters.toolchain import Linker

# Under these symbols a runtime looks for what it needs of a file that it loads by its path.
_ENTRIES = (BLOB_SYMBOL, "__tvm_ffi__library_ctx")
_EMULATIONS = {"aarch64": "aarch64linux", "x86_64": "elf_x86_64"}
_SYMBOLS = "symbols.map"
_TIME_LIMIT = 600  # seconds
_SECTION_TABLE, _SECTION_COUNTS = 0x28, 0x3A
_KIND_AND_FLAGS, _NAME_BYTES = struct.Struct("<IQ"), 4
_INIT_ARRAY, _EXCLUDE = 14, 0x80000000


@dataclass(frozen=True)
class SharedLibrary:
    """What a shared library shall be.

    Attributes:
        triple: LLVM's triple of its system.
        soname: the name that it calls itself.
        page_bytes: alignment of its segments.
        prefix: of the objects' symbols; empty if they have none.
    """

    triple: str
    soname: str
    page_bytes: int
    prefix: str = ""


def link_shared(
    members: Sequence[Member], library: SharedLibrary, linker: Linker, out: Path
) -> None:
    """Link object files to a shared library.

    Objects with a prefix are made to be linked into a program, which they register with when it
    starts. In the library they don't: a runtime finds it by its path, and what is in it by symbols
    without prefix.

    Args:
        members: object files.
        library: what it shall be.
        linker: that links for its system.
        out: the file to write.

    Raises:
        BuildError: the linker failed.
    """
    if library.prefix:
        members = [Member(name, without_initializers(data)) for name, data in members]
    output = str(out.absolute())
    with tempfile.TemporaryDirectory(prefix="edgec-link-") as folder:
        names = []
        for name, data in sorted(members):
            (Path(folder) / name).write_bytes(data)
            names.append(name)
        options = _options(library) + _renamed(members, library.prefix, Path(folder))
        if linker.driver:
            handed = [f"-Wl,{option}" for option in options]
            command = ["-shared", "-fPIC", "-O2", "-s", *handed, "-o", output, *names, "-lm"]
        else:
            command = ["-shared", "-s", "--eh-frame-hdr", "--hash-style=both", *options]
            command += ["-o", output, *names, *_stubs(library.triple, linker, Path(folder))]
        _run(linker, command, Path(folder))


def without_initializers(data: bytes) -> bytes:
    """An ELF object file whose initializers linkers leave out; nothing else changes."""
    changed = bytearray(data)
    (table,) = struct.unpack_from("<Q", data, _SECTION_TABLE)
    size, count = struct.unpack_from("<2H", data, _SECTION_COUNTS)
    for row in range(table, table + size * count, size):
        at = row + _NAME_BYTES
        kind, flags = _KIND_AND_FLAGS.unpack_from(data, at)
        if kind == _INIT_ARRAY:
            _KIND_AND_FLAGS.pack_into(changed, at, kind, flags | _EXCLUDE)
    return bytes(changed)


def _options(library: SharedLibrary) -> list[str]:
    """For the linker itself, of which there are several."""
    # Without a build id and with debug sections dropped (-s), nothing in the file depends on where
    # it was linked.
    return [
        "--build-id=none",
        f"-soname={library.soname}",
        f"-zmax-page-size={library.page_bytes}",
        "-znoexecstack",
    ]


def _renamed(members: Sequence[Member], prefix: str, folder: Path) -> list[str]:
    """Options that give every symbol with a prefix its name without one, and hide the other."""
    if not prefix:
        return []
    found = {symbol for name, data in members for symbol in parse_image(data, name).exported}
    start = FUNCTION_PREFIX + prefix
    names = {
        symbol: symbol.replace(start, FUNCTION_PREFIX, 1)
        for symbol in found
        if symbol.startswith(start)
    }
    names |= {prefix + name: name for name in _ENTRIES if prefix + name in found}
    hidden = "".join(f"    {symbol};\n" for symbol in sorted(names))
    (folder / _SYMBOLS).write_text(f"{{\n  local:\n{hidden}}};\n")
    aliases = [f"--defsym={name}={symbol}" for symbol, name in sorted(names.items())]
    return [*aliases, f"--version-script={_SYMBOLS}"]


def _stubs(triple: str, linker: Linker, folder: Path) -> list[str]:
    """Libraries with nothing but the names that the C library of the device has.

    They tell the linker where a function comes from. As they give no versions, the library runs
    with any C library that has the function.
    """
    architecture, system = triple.partition("-")[0], triple.rpartition("-")[2]
    libraries = next((found for key, found in LIBRARIES.items() if system.startswith(key)), None)
    if libraries is None or architecture not in _EMULATIONS:
        raise BuildError(
            "it is not known which C library such a system has",
            where=triple,
            remedy="use a triple as aarch64-linux-gnu or aarch64-linux-android24",
        )
    (folder / "nothing").write_bytes(b"")
    for name, functions in libraries.items():
        command = [f"-m{_EMULATIONS[architecture]}", "-shared", f"-soname={name}", "-o", name]
        command += [f"--defsym={function}=0" for function in sorted(functions)]
        _run(linker, [*command, "--format=binary", "nothing"], folder)
    return list(libraries)


def _run(linker: Linker, arguments: Iterable[str], folder: Path) -> None:
    command = [*linker.command, *arguments]
    # LLVM's linker writes its version into the file, or what this variable says.
    environment = {**os.environ, "LLD_VERSION": "LLD"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIME_LIMIT,
        )
        problem = done.stderr.strip()[-2000:] if done.returncode else ""
        failed = bool(done.returncode)
    except (OSError, subprocess.TimeoutExpired) as error:
        problem, failed = str(error), True
    if failed:
        raise BuildError(
            f"linking failed: {problem}",
            where=" ".join(linker.command),
            remedy="run edgec doctor with this target, and check that the linker works",
        )
