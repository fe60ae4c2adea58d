"""The engine, which is C++, as Python sees it."""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING

from edgec.standins.emulation.cxx import run
from edgec.standins.emulation.dialect import RUNTIME
from edgec.standins.toolbox import clang, compiled, version

if TYPE_CHECKING:
    from pathlib import Path

NOWHERE, LOCAL, DYNAMIC = -1, -2, -3
"""Values of :attr:`Fault.place`; others are positions of arguments."""

OUT_OF_BOUNDS, READ_ONLY, RACE, DIVERGENT, SIGNAL, ENDLESS, TRAP, FOREIGN_STACK, STACK = range(
    1, 10
)
"""Values of :attr:`Fault.kind`."""

_FLAGS = ("-std=c++20", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread")


class Dim(ctypes.Structure):
    """Numbers of work-items or work-groups in x, y, z."""

    _fields_ = (("x", ctypes.c_uint32), ("y", ctypes.c_uint32), ("z", ctypes.c_uint32))

    def __str__(self) -> str:
        return f"({self.x}, {self.y}, {self.z})"


class Party(ctypes.Structure):
    """A work-item that took part in a fault; ``known``: 0 nothing, 1 all, 2 the group only."""

    _fields_ = (
        ("group", Dim),
        ("item", Dim),
        ("writes", ctypes.c_uint32),
        ("known", ctypes.c_uint32),
    )


class Fault(ctypes.Structure):
    """As in ``engine.h``; offsets, sizes and extents in bytes."""

    _fields_ = (
        ("kind", ctypes.c_uint32),
        ("signal", ctypes.c_int32),
        ("place", ctypes.c_int32),
        ("code", ctypes.c_uint32),
        ("offset", ctypes.c_int64),
        ("size", ctypes.c_uint64),
        ("extent", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("actor", Party),
        ("other", Party),
        ("reason", ctypes.c_char * 256),
    )


class Buffer(ctypes.Structure):
    """The memory of one argument."""

    _fields_ = (
        ("address", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("argument", ctypes.c_uint32),
        ("read_only", ctypes.c_uint32),
    )


class Launch(ctypes.Structure):
    """As in ``engine.h``."""

    _fields_ = (
        ("copies", ctypes.POINTER(ctypes.c_void_p)),
        ("copy_count", ctypes.c_uint32),
        ("argument_count", ctypes.c_uint32),
        ("arguments", ctypes.c_char_p),
        ("grid", Dim),
        ("group", Dim),
        ("subgroup_width", ctypes.c_uint32),
        ("dynamic_shared", ctypes.c_uint32),
        ("reverse", ctypes.c_uint32),
        ("checked", ctypes.c_uint32),
        ("buffers", ctypes.POINTER(Buffer)),
        ("buffer_count", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32),
        ("seconds", ctypes.c_double),
    )


@functools.cache
def engine() -> ctypes.CDLL:
    """The loaded engine: ``emu_launch(Launch*, Fault*)`` is 0, 1 (a fault) or -1 (no memory).

    Raises:
        ToolchainError: there is no compiler for it.
    """
    compiler = clang("c++")

    def build(target: Path) -> None:
        files = sorted(str(path) for path in RUNTIME.glob("*.cc"))
        run([compiler, *_FLAGS, *files, "-o", str(target)], where="the kernels' engine")

    headers = sorted(RUNTIME.glob("*.h"))
    sources = [*headers, *sorted(RUNTIME.glob("*.cc"))]
    path = compiled([version(compiler), *_FLAGS, *sources], build, "engine.so")
    library = ctypes.CDLL(str(path))
    library.emu_launch.argtypes = (ctypes.POINTER(Launch), ctypes.POINTER(Fault))
    library.emu_launch.restype = ctypes.c_int
    return library
