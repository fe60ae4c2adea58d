"""The programs that stand-ins need, and a folder for what is compiled with them."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgec.errors import ToolchainError
from edgec.kept import kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

# What C++ kernels are compiled with, such as -ffloat16-excess-precision, came with clang 16.
_OLDEST_CLANG, _OLDEST_LLD, _NEWEST = 16, 14, 22
_QEMU_PACKAGE = "qemu-user"


def clang(language: str = "c") -> str:
    """The path of clang; ``language="c++"`` gives the driver that links C++.

    Raises:
        ToolchainError: there is none of version 16 to 22.
    """
    why = "compiles kernels so that they run on this CPU"
    found = _llvm("clang", "CLANG", _OLDEST_CLANG, why)
    if language == "c":
        return found
    folder, name = os.path.split(found)
    twin = os.path.join(folder, name.replace("clang", "clang++", 1))
    if "clang++" not in name and not os.access(twin, os.X_OK):
        raise ToolchainError(
            f"clang has no C++ driver {twin} beside it",
            where="clang",
            remedy=_install("clang-19"),
        )
    return found if "clang++" in name else twin


def lld() -> str:
    """The path of LLVM's ELF linker, which links for every processor.

    Raises:
        ToolchainError: there is none of version 14 to 22.
    """
    why = "links libraries for other processors"
    return _llvm("ld.lld", "LLD", _OLDEST_LLD, why, package="lld")


def cc() -> str:
    """The path of the C compiler of this machine: ``CC``, cc, gcc or clang.

    Raises:
        ToolchainError: there is none.
    """
    named = os.environ.get("CC")
    if named:
        return _named(named.split()[0], "CC", "gcc")
    for name in ("cc", "gcc"):
        if found := shutil.which(name):
            return found
    with contextlib.suppress(ToolchainError):
        return clang()
    raise ToolchainError(
        "there is no C compiler, which compiles the helpers of stand-ins",
        where="gcc",
        remedy=_install("gcc"),
    )


def cxx() -> str:
    """The path of the C++ compiler of this machine: ``CXX``, g++ or clang++.

    Raises:
        ToolchainError: there is none.
    """
    named = os.environ.get("CXX")
    if named:
        return _named(named.split()[0], "CXX", "g++")
    for name in ("g++", "c++"):
        if found := shutil.which(name):
            return found
    with contextlib.suppress(ToolchainError):
        return clang("c++")
    raise ToolchainError(
        "there is no C++ compiler, which compiles the helpers of stand-ins",
        where="g++",
        remedy=_install("g++"),
    )


def cross_cxx(architecture: str) -> str:
    """The path of g++ for a Linux machine of another architecture, such as ``"aarch64"``.

    Raises:
        ToolchainError: there is none.
    """
    name = f"{architecture}-linux-gnu-g++"
    found = shutil.which(name)
    if not found:
        raise ToolchainError(
            f"there is no {name}, which compiles programs for {architecture}",
            where=name,
            remedy=_install(f"g++-{architecture.replace('_', '-')}-linux-gnu"),
        )
    return found


def qemu(architecture: str) -> str:
    """The path of QEMU's user-mode emulator, such as ``qemu-aarch64``.

    Raises:
        ToolchainError: there is none.
    """
    name = f"qemu-{architecture}"
    variable = name.upper().replace("-", "_")
    if named := os.environ.get(variable):
        return _named(named, variable, _QEMU_PACKAGE)
    # The static build has the same use under another name.
    found = shutil.which(name) or shutil.which(f"{name}-static")
    if not found:
        raise ToolchainError(
            f"there is no {name}, which runs {architecture} machine code on this machine",
            where=name,
            remedy=_install(_QEMU_PACKAGE),
        )
    return found


@functools.cache
def version(program: str) -> str:
    """The first line of what a program says to ``--version``: part of what it compiles."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0].strip() or program


def compiled(
    key_parts: Iterable[str | bytes | Path], build: Callable[[Path], None], name: str
) -> Path:
    """A file that is compiled once and found again.

    Args:
        key_parts: all that the file is made from: texts, flags, compiler versions; a ``Path``
            stands for that file's bytes, or for those of all files in that folder.
        build: writes the file at the path it is given, in a folder that is its own; other files
            it leaves there are removed.
        name: the file's name.

    Raises:
        CacheError: the cache's folder can't be written.
    """

    def make(folder: Path) -> None:
        with tempfile.TemporaryDirectory(prefix=".", dir=folder) as work:
            fresh = Path(work) / name
            build(fresh)
            fresh.rename(folder / name)

    return kept(_digest([*key_parts, name]), "compiled tools", make) / name


def _digest(parts: Iterable[str | bytes | Path]) -> str:
    total = hashlib.sha256()
    for part in parts:
        for raw in _bytes(part):
            total.update(len(raw).to_bytes(8, "little"))
            total.update(raw)
    return total.hexdigest()


def _bytes(part: str | bytes | Path) -> Sequence[bytes]:
    if isinstance(part, str):
        return [part.encode()]
    if isinstance(part, bytes):
        return [part]
    if part.is_dir():
        files = sorted(path for path in part.rglob("*") if path.is_file())
        return [
            raw
            for path in files
            for raw in (str(path.relative_to(part)).encode(), path.read_bytes())
        ]
    return [part.name.encode(), part.read_bytes()]


def _llvm(name: str, variable: str, oldest: int, why: str, package: str = "") -> str:
    package = package or name
    if named := os.environ.get(variable):
        return _named(named, variable, f"{package}-19")
    for number in range(_NEWEST, oldest - 1, -1):
        if found := shutil.which(f"{name}-{number}"):
            return found
    plain = shutil.which(name)
    if plain and oldest <= _major(plain) <= _NEWEST:
        return plain
    what = f"there is no {name} of version {oldest} to {_NEWEST}, which {why}"
    if plain:
        what += f" ({plain} is version {_major(plain)})"
    raise ToolchainError(what, where=name, remedy=_install(f"{package}-19"))


def _named(program: str, variable: str, package: str) -> str:
    found = shutil.which(program)
    if not found:
        raise ToolchainError(
            f"{variable} names {program!r}, which is no program",
            where=variable,
            remedy=f"correct it, or unset it and {_install(package)}",
        )
    return found


def _major(program: str) -> int:
    match = re.search(r"(\d+)\.\d+", version(program))
    return int(match[1]) if match else 0


def _install(package: str) -> str:
    return f"install it (Debian: apt-get install {package})"
