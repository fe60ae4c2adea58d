"""AMX instructions as bytes, put together by the tables of Intel's manual, and run from memory."""

from __future__ import annotations

import ctypes
import mmap
import struct
from dataclasses import dataclass

import numpy as np

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 = range(16)
# The first arguments of a function, in order.
ARGUMENTS = (RDI, RSI, RDX, RCX, R8, R9)

_NONE, _66, _F3, _F2 = range(4)
PRODUCTS = {
    "tdpbssd": (_F2, 0x5E),
    "tdpbsud": (_F3, 0x5E),
    "tdpbusd": (_66, 0x5E),
    "tdpbuud": (_NONE, 0x5E),
    "tdpbf16ps": (_F3, 0x5C),
}
_MOVES = {"tileloadd": _F2, "tileloaddt1": _66, "tilestored": _F3}
_CONFIGS = {"ldtilecfg": _NONE, "sttilecfg": _66}


@dataclass(frozen=True)
class Place:
    """``[base + index * scale + displacement]``; a base of None is the next instruction."""

    base: int | None
    index: int | None = None
    scale: int = 1
    displacement: int = 0


def _vex(prefix: int, opcode: int, *, b: bool = False, x: bool = False, third: int = 0) -> bytes:
    first = 0x80 | (not x) << 6 | (not b) << 5 | 2
    return bytes([0xC4, first, (~third & 15) << 3 | prefix, opcode])


def _memory(field: int, place: Place, *, sib: bool) -> bytes:
    """ModRM, SIB and displacement, as short as they can be."""
    if place.base is None:
        return bytes([field << 3 | 5]) + struct.pack("<i", place.displacement)
    small = -128 <= place.displacement < 128
    # A base of rbp or r13 without a displacement would mean something else.
    mod = 0 if not place.displacement and place.base & 7 != RBP else 1 if small else 2
    tail = {0: b"", 1: struct.pack("<b", place.displacement) if small else b""}.get(
        mod, struct.pack("<i", place.displacement)
    )
    if not sib and place.index is None and place.base & 7 != RSP:
        return bytes([mod << 6 | field << 3 | place.base & 7]) + tail
    index = RSP if place.index is None else place.index & 7
    scale = place.scale.bit_length() - 1
    return bytes([mod << 6 | field << 3 | 4, scale << 6 | index << 3 | place.base & 7]) + tail


def move(name: str, tile: int, place: Place) -> bytes:
    high = {"b": (place.base or 0) > 7, "x": (place.index or 0) > 7}
    return _vex(_MOVES[name], 0x4B, **high) + _memory(tile, place, sib=True)


def config(name: str, place: Place) -> bytes:
    high = {"b": (place.base or 0) > 7, "x": (place.index or 0) > 7}
    return _vex(_CONFIGS[name], 0x49, **high) + _memory(0, place, sib=False)


def product(name: str, total: int, left: int, right: int) -> bytes:
    prefix, opcode = PRODUCTS[name]
    return _vex(prefix, opcode, third=right) + bytes([0xC0 | total << 3 | left])


def tilezero(tile: int) -> bytes:
    return _vex(_F2, 0x49) + bytes([0xC0 | tile << 3])


TILERELEASE = _vex(_NONE, 0x49) + b"\xc0"
RETURN = b"\xc3"
UNDEFINED = b"\x0f\x0b"


def configuration(rows: list[int], columns: list[int]) -> np.ndarray:
    """Palette 1 with ``rows`` and ``columns`` (in bytes) for the first tiles."""
    out = np.zeros(64, np.uint8)
    out[0] = 1
    out[16:32].view(np.uint16)[: len(columns)] = columns
    out[48 : 48 + len(rows)] = rows
    return out


def execute(code: bytes, *arguments: int | np.ndarray) -> None:
    """Call instructions that end with ``RETURN``; arrays are handed over as their addresses."""
    memory = mmap.mmap(-1, len(code), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    place = ctypes.c_char.from_buffer(memory)
    values = [item.ctypes.data if isinstance(item, np.ndarray) else item for item in arguments]
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(values))(ctypes.addressof(place))(*values)
