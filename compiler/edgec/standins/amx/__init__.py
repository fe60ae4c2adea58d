"""AMX on processors without it: part of the stand-in ``native``.

A library for x86-64 machines with AMX differs from one with AVX-512 in a few instructions that move and
multiply matrix tiles. Where a processor knows all but these, it can run the library itself: each
raises the signal SIGILL, and a handler in this process (``src``, C, compiled on first use) executes
it as Intel's manual defines it. That is exact, and some hundred times slower than AMX.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgec.errors import ToolchainError
from edgec.standins import toolbox
from edgec.standins.guest.program import compile_tool
from edgec.target import host

if TYPE_CHECKING:
    from collections.abc import Collection

FEATURES = frozenset({"amx_tile", "amx_int8", "amx_bf16"})
"""The flags of ``/proc/cpuinfo`` whose instructions are executed."""

_SOURCES = Path(__file__).parent / "src"
# The handler itself uses these features; every processor with AVX-512 has them.
_USES = ("avx2", "fma")
_FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared", *(f"-m{feature}" for feature in _USES))


def emulated(missing: Collection[str]) -> list[str]:
    """Those of a library's missing CPU features that are emulated: all, sorted, or none.

    Args:
        missing: what the library needs and this processor lacks.

    Raises:
        ToolchainError: this system doesn't tell what its processor has.
    """
    if not missing or not FEATURES.issuperset(missing) or unavailable():
        return []
    return sorted(missing)


def unavailable() -> str:
    """Why AMX can't be emulated on this machine, without a full stop; empty if it can.

    Raises:
        ToolchainError: this system doesn't tell what its processor has.
    """
    if sys.platform != "linux" or host.architecture(platform.machine()) != "x86_64":
        return "AMX is emulated on x86-64 processors under Linux only"
    if lacking := sorted(set(_USES) - host.cpu_features()):
        return f"AMX is emulated with CPU features that this one lacks: {', '.join(lacking)}"
    try:
        toolbox.cc()
    except ToolchainError as error:
        return error.what
    return ""


def install() -> ctypes.CDLL:
    """Execute AMX's instructions in this process from now on.

    What handled SIGILL before still gets everything else. Something that takes the signal later ends
    the emulation, until this is called again. An instruction that a processor with AMX would refuse,
    such as a product of tiles that don't fit, ends the process with a message that names it.

    Returns:
        The compiled part. Its ``edgec_amx_executed(b"tdpbf16ps")`` counts instructions.

    Raises:
        ToolchainError: AMX can't be emulated on this machine.
        CacheError: the cache's folder can't be written.
    """
    if reason := unavailable():
        raise ToolchainError(
            reason, where="AMX", remedy="verify the library on a machine with AMX, or install gcc"
        )
    library = _library()
    if library.edgec_amx_install():
        raise ToolchainError("the system doesn't let SIGILL be handled", where="AMX")
    return library


@functools.cache
def _library() -> ctypes.CDLL:
    compiler = toolbox.cc()

    def build(target: Path) -> None:
        sources = map(str, sorted(_SOURCES.glob("*.c")))
        compile_tool([compiler, *_FLAGS, *sources, "-o", str(target)])

    parts: list[str | Path] = [_SOURCES, toolbox.version(compiler), " ".join(_FLAGS)]
    library = ctypes.CDLL(str(toolbox.compiled(parts, build, "amx.so")))
    library.edgec_amx_executed.argtypes = [ctypes.c_char_p]
    library.edgec_amx_executed.restype = ctypes.c_long
    return library
