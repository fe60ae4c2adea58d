"""The messages between this process and a guest; ``src/protocol.h`` defines them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from edgec.standins.guest.tensors import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Requests, and the states that replies tell.
RESOLVE, CALL, MEMORY = 1, 2, 3
OK, RAISED, FAULT, WANT_MEMORY = 0, 1, 2, 3

REQUEST = struct.Struct("<IIIIQ")
REPLY = struct.Struct("<IIIIiIQ")
VALUE_OFFSET = 16
"""Where in a reply's header the function's value lies."""

_VALUE = struct.Struct("<iIQ")
_TENSOR = struct.Struct("<QQiiiBBHQ")
_LAUNCH = struct.Struct("<II")
_FAULT = struct.Struct("<QQQQ")
_SIZE = struct.Struct("<Q")
_INT = struct.Struct("<q")
_FLOAT = struct.Struct("<d")
# Type indices of TVM's values.
_NONE, _INTEGER, _BOOL, _REAL, _POINTER = 0, 1, 2, 3, 4
TENSORS = DL_TENSOR, TENSOR_OBJECT = 7, 70
"""Type indices of a tensor: a pointer to a ``DLTensor``, and an object that ends with one."""

Argument: TypeAlias = "Tensor | int | float | bool | None"


@dataclass(frozen=True)
class Launch:
    """A kernel that a host function launched.

    Attributes:
        kernel: its name in the device module.
        values: the arguments, addresses as integers, and the extents after them.
    """

    kernel: str
    values: tuple[int | float, ...]


@dataclass(frozen=True)
class Fault:
    """What ended a guest.

    Attributes:
        signal: its number.
        address: that was accessed, or where execution stopped.
        instruction: address of the instruction.
        library_offset: of the instruction in the library's image; None if it lies elsewhere.
    """

    signal: int
    address: int
    instruction: int
    library_offset: int | None


def resolve_request(symbol: str) -> bytes:
    """Ask for the number of a function."""
    body = symbol.encode() + b"\0"
    return REQUEST.pack(REQUEST.size + len(body), RESOLVE, 0, 0, 0) + body


def memory_answer(address: int) -> bytes:
    """Tell where the memory is that was asked for."""
    return REQUEST.pack(REQUEST.size, MEMORY, 0, 0, address)


def read_arguments(request: bytes) -> list[Argument]:
    """The arguments of a call, in order."""
    found: list[Argument] = []
    for value, tensor in read_values(request):
        kind, _, bits = _VALUE.unpack(value)
        found.append(tensor or (None if kind == _NONE else _number(kind, bits)))
    return found


def read_values(request: bytes) -> Iterator[tuple[bytes, Tensor | None]]:
    """The arguments of a call: each one's 16 bytes of TVM's, and the tensor if it is one."""
    *_, count, _ = REQUEST.unpack_from(request)
    at = REQUEST.size
    for _ in range(count):
        value = request[at : at + _VALUE.size]
        at += _VALUE.size
        tensor = None
        if _VALUE.unpack(value)[0] in TENSORS:
            tensor, at = _read_tensor(request, at)
        yield value, tensor


def read_launches(reply: memoryview, count: int) -> tuple[list[Launch], int]:
    """The launches of a reply, and where the contents of host tensors begin."""
    at = REPLY.size
    found = []
    for _ in range(count):
        name_size, arguments = _LAUNCH.unpack_from(reply, at)
        at += _LAUNCH.size
        name = bytes(reply[at : at + name_size]).decode()
        at += _padded(name_size)
        values = []
        for _ in range(arguments):
            kind, _, bits = _VALUE.unpack_from(reply, at)
            values.append(_number(kind, bits))
            at += _VALUE.size
        found.append(Launch(name, tuple(values)))
    return found, at


def read_raised(reply: memoryview) -> tuple[str, str]:
    """Kind and message of an error."""
    texts = []
    at = REPLY.size
    for _ in range(2):
        (size,) = _SIZE.unpack_from(reply, at)
        at += _SIZE.size
        texts.append(bytes(reply[at : at + size]).decode(errors="replace"))
        at += _padded(size)
    return texts[0], texts[1]


def read_fault(reply: memoryview) -> Fault:
    """What ended the guest."""
    signal, address, instruction, offset = _FAULT.unpack_from(reply, REPLY.size)
    return Fault(signal, address, instruction, None if offset == 2**64 - 1 else offset)


def return_contents(arguments: Sequence[Argument], contents: memoryview) -> None:
    """Show in the arguments what a call left in tensors of this process."""
    at = 0
    for item in arguments:
        if isinstance(item, Tensor) and item.content is not None:
            size = len(item.content)
            item.content = contents[at : at + size]
            at += _padded(size)


def _read_tensor(request: bytes, at: int) -> tuple[Tensor, int]:
    data, offset, device, _, ndim, code, bits, lanes, inline = _TENSOR.unpack_from(request, at)
    at += _TENSOR.size
    shape = struct.unpack_from(f"<{ndim}q", request, at)
    strides = struct.unpack_from(f"<{ndim}q", request, at + 8 * ndim)
    at += 16 * ndim
    content = memoryview(request)[at : at + inline] if inline else None
    tensor = Tensor(data, offset, device, shape, strides, (code, bits, lanes), content)
    return tensor, at + _padded(inline)


def _number(kind: int, bits: int) -> int | float | bool:
    raw = _SIZE.pack(bits)
    if kind == _REAL:
        return float(_FLOAT.unpack(raw)[0])
    if kind == _BOOL:
        return bool(bits)
    return bits if kind == _POINTER else int(_INT.unpack(raw)[0])


def _padded(size: int) -> int:
    return size + -size % 8
