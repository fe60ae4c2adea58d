"""What a library's bytecode defines, and what it calls.

The Relax virtual machine's format begins with a magic number, a version, and the table of functions
that is read here; constants and instructions follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgec.libraries.cursor import Cursor, damaged

_MAGICS = (0xD225DE2F4214151D, 0xD225DE2F4214151E)
_KINDS: dict[int, Literal["packed", "vm", "tir"]] = {0: "packed", 1: "vm", 2: "tir"}


@dataclass(frozen=True)
class BytecodeFunction:
    """One entry of the table of functions.

    Attributes:
        name: by which it is called.
        kind: ``"vm"`` is defined here; ``"packed"`` is a host function or one of the runtime's;
            ``"tir"`` is defined here and lowered to machine code.
        parameters: of the functions defined here.
    """

    name: str
    kind: Literal["packed", "vm", "tir"]
    parameters: tuple[str, ...]


def bytecode_functions(
    bytecode: bytes, where: str = "the bytecode"
) -> tuple[BytecodeFunction, ...]:
    """The functions that a bytecode defines or calls, in the order of its table.

    Args:
        bytecode: of a library.
        where: names it in error messages.

    Raises:
        VerificationError: it is damaged.
    """
    cursor = Cursor(bytecode, where)
    if cursor.u64("the magic number") not in _MAGICS:
        raise damaged("this is no bytecode of the Relax virtual machine", where)
    cursor.text("the version")
    return tuple(_function(cursor) for _ in range(cursor.u64("the table of functions")))


def _function(cursor: Cursor) -> BytecodeFunction:
    what = "the table of functions"
    (kind,) = cursor.unpack("i", what)
    if kind not in _KINDS:
        raise damaged(f"there is no kind {kind} of functions", cursor.where)
    name = cursor.text(what)
    cursor.unpack("4q", what)  # first and last instruction, arguments, registers
    parameters = tuple(cursor.text(what) for _ in range(cursor.u64(what)))
    return BytecodeFunction(name, _KINDS[kind], parameters)
