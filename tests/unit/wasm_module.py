"""Small WebAssembly modules, put together byte by byte from the specification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HEAD = b"\0asm\1\0\0\0"
FUNCTION, TABLE, MEMORY, GLOBAL, TAG = range(5)
I32 = 0x7F


def number(value: int) -> bytes:
    """An unsigned number in groups of seven bits."""
    raw = b""
    while value > 0x7F:
        raw, value = raw + bytes([value & 0x7F | 0x80]), value >> 7
    return raw + bytes([value])


def signed(value: int) -> bytes:
    """A signed one."""
    raw = b""
    while not -64 <= value < 64:
        raw, value = raw + bytes([value & 0x7F | 0x80]), value >> 7
    return raw + bytes([value & 0x7F])


def text(value: str) -> bytes:
    """A name."""
    return number(len(value.encode())) + value.encode()


def vector(rows: Sequence[bytes]) -> bytes:
    """How many, and the rows."""
    return number(len(rows)) + b"".join(rows)


def section(kind: int, body: bytes) -> bytes:
    """A section."""
    return bytes([kind]) + number(len(body)) + body


def constant(value: int) -> bytes:
    """An expression."""
    return b"\x41" + signed(value) + b"\x0b"


@dataclass(frozen=True)
class Memory:
    """What is at addresses when a module starts, and the names of some."""

    segments: Mapping[int, bytes]
    symbols: Mapping[str, int]


def module(memory: Memory, imports: Sequence[bytes] = (), extra: bytes = b"") -> bytes:
    """A module that imports one function and one global, and exports a memory and addresses."""
    rows = [
        text("env") + text("call") + bytes([FUNCTION]) + number(0),
        text("env") + text("base") + bytes([GLOBAL, I32, 0]),
        *imports,
    ]
    symbols = list(memory.symbols.items())
    # The first global defined here is none that is exported.
    values = [bytes([I32, 1]) + constant(-3)]
    values += [bytes([I32, 0]) + constant(address) for _, address in symbols]
    exports = [text("memory") + bytes([MEMORY, 0])]
    exports += [
        text(name) + bytes([GLOBAL]) + number(2 + place) for place, (name, _) in enumerate(symbols)
    ]
    data = [
        number(0) + constant(address) + number(len(held)) + held
        for address, held in memory.segments.items()
    ]
    # A passive segment, which only code places, and one of another memory.
    data.append(number(1) + number(4) + b"\1\2\3\4")
    data.append(number(2) + number(1) + constant(0) + number(4) + b"\1\2\3\4")
    return (
        HEAD
        + section(1, vector([b"\x60\0\0"]))
        + section(2, vector(rows))
        + section(5, vector([b"\0\x02"]))
        + section(6, vector(values))
        + section(7, vector(exports))
        + extra
        + section(11, vector(data))
    )
