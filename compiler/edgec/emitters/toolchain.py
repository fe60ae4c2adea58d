"""The linkers: which one links a library, found without loading TVM."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from edgec.emitters.cuda_toolkit import find_toolkit
from edgec.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Sequence

NDK_VARIABLE = "TVM_NDK_CC"
_LLD_VERSIONS = range(22, 13, -1)
_LLD_REMEDY = "run: pip install ziglang (or on Debian or Ubuntu: apt-get install lld-19)"


@dataclass(frozen=True)
class Linker:
    """A program that links shared libraries.

    Attributes:
        command: the program, and its first arguments.
        driver: whether it is a compiler, which hands options on to its linker and knows where the
            C library is; else it is a linker, which knows of no C library.
    """

    command: tuple[str, ...]
    driver: bool


def linker_for(platform_name: str, triple: str) -> Linker:
    """The linker of a platform's shared libraries.

    That is the C compiler for x86-64 machines of this machine's kind. For all else it is LLVM's
    linker, with which no C library for the device is needed: ``LLD``, ``ld.lld-22`` to
    ``ld.lld-14``, ``ld.lld``, or the one of the Python package ziglang; without it a C compiler for
    the device. For Android ``TVM_NDK_CC`` wins, which names the C compiler of the NDK.

    Args:
        platform_name: the profile's ``platform``.
        triple: LLVM's triple of the library.

    Raises:
        ToolchainError: there is none, or a variable names a program that isn't there.
    """
    architecture = triple.partition("-")[0]
    ndk = os.environ.get(NDK_VARIABLE) if platform_name == "android" else None
    if ndk:
        return Linker((_named(NDK_VARIABLE, ndk),), driver=True)
    own = "android" not in triple and architecture == _this_machine()
    if own and architecture == "x86_64":
        return Linker((c_compiler(),), driver=True)
    lld = find_lld()
    if lld:
        return Linker(lld, driver=False)
    compiler = None
    if own:
        compiler = _first([os.environ.get("CC"), "cc", "gcc", "clang"])
    elif "linux-gnu" in triple:
        compiler = _program(f"{architecture}-linux-gnu-gcc")
    if compiler:
        return Linker((compiler,), driver=True)
    raise ToolchainError(
        f"there is no LLVM linker (ld.lld), which links the library for {triple}",
        where="ld.lld",
        remedy=_LLD_REMEDY,
    )


def find_lld() -> tuple[str, ...] | None:
    """The command of LLVM's linker for ELF; None if there is none.

    Raises:
        ToolchainError: ``LLD`` names a program that isn't there.
    """
    named = os.environ.get("LLD")
    if named:
        return (_named("LLD", named),)
    path = _first([*(f"ld.lld-{number}" for number in _LLD_VERSIONS), "ld.lld"])
    if path:
        return (path,)
    if importlib.util.find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "ld.lld")
    return None


def c_compiler() -> str:
    """Path of the C compiler: the one named in ``CC``, else ``cc``, ``gcc`` or ``clang``.

    Raises:
        ToolchainError: there is none.
    """
    path = _first([os.environ.get("CC"), "cc", "gcc", "clang"])
    if path:
        return path
    raise ToolchainError(
        "no C compiler was found to link the library",
        where="cc",
        remedy="install one (on Debian or Ubuntu: apt-get install gcc libc6-dev), or name it in CC",
    )


def c_compiler_version() -> str:
    """First line of the compiler's version: part of what a library's bytes depend on."""
    return version((c_compiler(),))


def metal_compiler() -> tuple[str, ...] | None:
    """The command of Xcode's Metal compiler for iOS; None where there is none."""
    if sys.platform != "darwin" or not shutil.which("xcrun"):
        return None
    command = ("xcrun", "-sdk", "iphoneos", "metal")
    # Xcode's command line tools have xcrun, and no compiler for it to run.
    return command if version(command) != "unknown" else None


def tool_versions(
    platform_name: str,
    triple: str,
    forms: Sequence[str],
    cuda_architectures: Sequence[str] = (),
    cuda_toolkit: str | None = None,
) -> dict[str, str]:
    """The versions of all programs that the bytes of a library depend on, by what they do.

    Args:
        platform_name: the profile's ``platform``.
        triple: LLVM's triple of the library.
        forms: the profile's ``library.forms``; the other arguments are fields of it too.
        cuda_architectures: GPUs to make machine code for.
        cuda_toolkit: beginning of the version of the CUDA toolkit to make it with.

    Raises:
        ToolchainError: a program that is needed isn't there.
    """
    found = {}
    if "shared" in forms:
        found["linker"] = version(linker_for(platform_name, triple).command)
    if cuda_architectures:
        parts = find_toolkit(cuda_toolkit).parts
        found |= {f"cuda.{name}": text for name, text in parts.items()}
    if "wasm" in forms:
        # It needs this module.
        from edgec.emitters.web.runtime import web_versions  # noqa: PLC0415

        found |= web_versions()
    metal = metal_compiler() if platform_name == "ios" else None
    if metal:
        found["metal"] = version(metal)
    return found


@lru_cache
def version(command: tuple[str, ...]) -> str:
    """First line of what a program says to ``--version``; ``"unknown"`` if it says nothing."""
    try:
        done = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.splitlines()[0] if done.stdout else "unknown"


def _this_machine() -> str:
    """This machine's architecture as in LLVM's triples; empty if it doesn't run Linux."""
    return platform.machine().lower() if sys.platform.startswith("linux") else ""


def _first(names: list[str | None]) -> str | None:
    return next((path for name in names if name and (path := _program(name))), None)


def _program(name: str) -> str | None:
    """The absolute path of a program: linkers run in a folder of their own."""
    path = shutil.which(name)
    return os.path.abspath(path) if path else None


def _named(variable: str, program: str) -> str:
    path = _program(program)
    if not path:
        raise ToolchainError(
            f"{variable} names {program!r}, which is no program",
            where=variable,
            remedy="correct it, or unset it",
        )
    return path
