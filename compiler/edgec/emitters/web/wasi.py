"""Clang with the libraries of WASI: in the places of Debian's packages, or in a WASI SDK."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from edgec.emitters.toolchain import version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SDK_VARIABLE = "WASI_SDK_PATH"
TRIPLE = "wasm32-wasi"
# 19 is Debian 12's newest, and what everything here was tried with.
_ADVISED, _OLDEST, _NEWEST = 19, 16, 22
_SYSTEM = Path("/usr")
# What a linker puts into a library besides the runtime.
_C_LIBRARY, _CXX_LIBRARY = ("crt1-reactor.o", "libc.a"), ("libc++abi.a", "libc++.a")
# How different builds of clang call the folder of compiler-rt.
_BUILTINS = ("wasi", "wasip1", "wasm32-unknown-wasi", "wasm32-unknown-wasip1")
_DIGITS = 16


@dataclass(frozen=True)
class WasiPart:
    """One part of such a compiler.

    Attributes:
        name: what it is.
        path: empty if it isn't there.
        needed: what it does.
        package: Debian's name of the package that has it.
    """

    name: str
    path: str
    needed: str
    package: str


@dataclass(frozen=True)
class WasiClang:
    """A compiler with its libraries, of which parts may be missing.

    Attributes:
        sysroot: folder of the libraries.
        parts: all that is needed; the compiler driver comes first, then the linker.
    """

    sysroot: Path
    parts: tuple[WasiPart, ...]

    @property
    def missing(self) -> tuple[WasiPart, ...]:
        """The parts that aren't there."""
        return tuple(part for part in self.parts if not part.path)

    @property
    def command(self) -> tuple[str, ...]:
        """The compiler driver, and what every call of it begins with."""
        return (self.parts[0].path, f"--target={TRIPLE}", f"--sysroot={self.sysroot}")

    def versions(self) -> Mapping[str, str]:
        """Version of each part that the bytes of a library depend on; no part may be missing."""
        clang, linker, *libraries = (part.path for part in self.parts)
        folder = _libraries(self.sysroot)
        names = [folder / name for name in (*_C_LIBRARY, *_CXX_LIBRARY)]
        return {
            "clang": version((clang,)),
            "wasm-ld": version((linker,)),
            "libraries": _digest((Path(libraries[0]), *names)),
        }


def find_wasi_clang() -> WasiClang:
    """The compiler with the fewest missing parts; the newest of those.

    ``WASI_SDK_PATH``, the folder of a WASI SDK, wins.
    """
    sdk = os.environ.get(SDK_VARIABLE)
    if sdk:
        return _described(
            _program(str(Path(sdk, "bin", "clang++"))), Path(sdk, "share/wasi-sysroot")
        )
    found = [_described(path, _SYSTEM) for path in _installed()]
    return min(found or [_described("", _SYSTEM)], key=lambda clang: len(clang.missing))


def _installed() -> Iterator[str]:
    for number in range(_NEWEST, _OLDEST - 1, -1):
        if path := _program(f"clang++-{number}"):
            yield path
    plain = _program("clang++")
    if plain and _OLDEST <= _major(plain) <= _NEWEST:
        yield plain


def _described(clang: str, sysroot: Path) -> WasiClang:
    number = (clang and _major(clang)) or _ADVISED
    linker = clang and _program(_said(clang, "-print-prog-name=wasm-ld"))
    folder = _libraries(sysroot)
    headers = sysroot / "include" / TRIPLE
    rows = (
        ("clang++", clang, "compiles TVM's runtime for browsers", f"clang-{number}"),
        ("wasm-ld", linker, "links libraries for browsers", f"lld-{number}"),
        (
            "compiler-rt for wasm32",
            clang and _builtins(clang),
            "has the arithmetic that WebAssembly lacks",
            f"libclang-rt-{number}-dev-wasm32",
        ),
        (
            "wasi-libc",
            _all(headers / "stdio.h", *(folder / name for name in _C_LIBRARY)),
            "is the C library in the runtime for browsers",
            "wasi-libc",
        ),
        (
            "libc++ for wasm32",
            _all(headers / "c++/v1/vector", *(folder / name for name in _CXX_LIBRARY)),
            "is the C++ library in the runtime for browsers",
            f"libc++-{number}-dev-wasm32 libc++abi-{number}-dev-wasm32",
        ),
    )
    return WasiClang(sysroot, tuple(WasiPart(*row) for row in rows))


def _libraries(sysroot: Path) -> Path:
    return sysroot / "lib" / TRIPLE


def _builtins(clang: str) -> str:
    folder = Path(_said(clang, "-print-resource-dir"), "lib")
    found = [path for name in _BUILTINS for path in (folder / name).glob("libclang_rt.builtins*.a")]
    return str(found[0]) if found else ""


def _all(*paths: Path) -> str:
    """The last of the paths if all of them exist, else nothing."""
    return str(paths[-1]) if all(path.exists() for path in paths) else ""


def _program(name: str) -> str:
    path = shutil.which(name)
    return os.path.abspath(path) if path else ""


def _major(clang: str) -> int:
    found = re.search(r"version (\d+)\.", version((clang,)))
    return int(found[1]) if found else 0


@lru_cache
def _said(program: str, option: str) -> str:
    try:
        done = subprocess.run(
            [program, option], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


@lru_cache
def _digest(files: tuple[Path, ...]) -> str:
    total = hashlib.sha256()
    for path in files:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:_DIGITS]
