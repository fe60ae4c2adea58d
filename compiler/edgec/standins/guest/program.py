"""The guest program for a processor, and the command that runs it here."""

from __future__ import annotations

import functools
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgec.errors import ToolchainError
from edgec.ir.load import load_tvm
from edgec.standins import toolbox
from edgec.standins.guest.processors import choose_processor

if TYPE_CHECKING:
    from collections.abc import Iterable

_SOURCES = Path(__file__).parent / "src"
_COMPILE = ("-x", "c", "-std=gnu11", "-O2", "-c")
# The library's undefined symbols are found in the program itself.
_LINK = ("-rdynamic", "-Wl,--no-as-needed", "-ldl", "-lm")


@dataclass(frozen=True)
class Runner:
    """How a program for some processor is run on this machine.

    Attributes:
        command: what comes before the program and its arguments.
        processor: the emulated one, or the machine's own.
    """

    command: tuple[str, ...]
    processor: str


def is_native(architecture: str) -> bool:
    """Whether this machine runs the machine code itself."""
    return _plain(architecture) == _plain(platform.machine())


def guest_program(architecture: str) -> Path:
    """The compiled guest for Linux on an architecture.

    Raises:
        ToolchainError: there is no compiler for it, or its C library is missing.
        CacheError: the cache's folder can't be written.
    """
    compiler = _compiler(architecture)
    sources = sorted(_SOURCES.glob("*.c"))
    headers = wheel_headers()

    def build(target: Path) -> None:
        objects = []
        for source in sources:
            objects.append(str(target.with_name(f"{source.stem}.o")))
            folders = [f"-I{folder}" for folder in headers]
            compile_tool([compiler, *_COMPILE, *folders, str(source), "-o", objects[-1]])
        compile_tool([compiler, *objects, "-o", str(target), *_LINK])

    flags = " ".join((*_COMPILE, *_LINK))
    parts: list[str | Path] = [_SOURCES, toolbox.version(compiler), flags, *wheel_versions()]
    return toolbox.compiled(parts, build, "guest")


def runner(architecture: str, cpu: str | None, features: Iterable[str]) -> Runner:
    """The command that runs programs for an architecture: none if this machine is of it.

    Args:
        architecture: such as ``"aarch64"``.
        cpu: the processor to emulate; see :func:`choose_processor`.
        features: that the programs need.

    Raises:
        ToolchainError: there is no emulator, or it knows no such processor.
    """
    if is_native(architecture):
        return Runner((), platform.machine())
    emulator = toolbox.qemu(architecture)
    processor = choose_processor(architecture, cpu, features)
    command = (emulator, "-cpu", processor.option, "-L", str(_sysroot(architecture)))
    return Runner(command, processor.option)


def compile_tool(command: list[str]) -> None:
    """Run a compiler on sources of ours.

    Raises:
        ToolchainError: it fails.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        first = next((line for line in lines if "error" in line), lines[0])
        raise ToolchainError(
            f"a helper of the stand-ins can't be compiled ({first})",
            where=command[0],
            remedy="check that the compiler works and that its C library is installed",
        )


def wheel_headers() -> list[Path]:
    """Folders of the headers that TVM's wheels bring."""
    load_tvm()
    import tvm  # noqa: PLC0415 - after load_tvm
    import tvm_ffi  # noqa: PLC0415

    return [Path(item.__file__).parent / "include" for item in (tvm, tvm_ffi)]


def wheel_versions() -> list[str]:
    """Versions of TVM's wheels: what is compiled against their headers depends on them."""
    load_tvm()
    import tvm  # noqa: PLC0415 - after load_tvm
    import tvm_ffi  # noqa: PLC0415

    return [f"tvm {tvm.__version__}", f"tvm_ffi {tvm_ffi.__version__}"]


def _compiler(architecture: str) -> str:
    if is_native(architecture):
        return toolbox.cxx()
    return toolbox.cross_cxx(_plain(architecture))


@functools.cache
def _sysroot(architecture: str) -> Path:
    """The folder with the C library of another architecture, below which lies ``lib``."""
    compiler = _compiler(architecture)
    done = subprocess.run(
        [compiler, "-print-file-name=libc.so.6"], capture_output=True, text=True, check=False
    )
    found = Path(done.stdout.strip())
    if not found.is_absolute():
        raise ToolchainError(
            f"the C library for {architecture} is missing, without which nothing runs there",
            where=compiler,
            remedy=f"install it (Debian: apt-get install g++-{_plain(architecture)}-linux-gnu)",
        )
    return found.resolve().parent.parent


def _plain(architecture: str) -> str:
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(architecture.lower(), architecture.lower())
