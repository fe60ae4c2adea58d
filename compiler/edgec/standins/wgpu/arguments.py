"""The arguments of a host function, as they lie in a WebAssembly module's memory."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from edgec.standins.guest import wire
from edgec.standins.wgpu.ffi import OBJECT, VALUE, Value

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgec.standins.guest.tensors import Tensor

# A DLTensor where pointers have 32 bits: data, type and number of the device, dimensions, type of
# the elements, shape, strides; then, at a multiple of 8, the offset in bytes.
_TENSOR = struct.Struct("<IiiiBBHII4xQ")
_DATA_AT, _SHAPE_AT, _STRIDES_AT = 0, 20, 24
_VALUE_AT = 8
_ONE_REFERENCE = 1 << 32 | 1
_ALIGNMENT = 64  # bytes: what code may assume of a tensor
_POINTER = struct.Struct("<I")


class Arguments:
    """Arguments that are built for one call.

    Args:
        request: of the call, as ``protocol.h`` lays it out.
        handle: gives the device's handle of the memory at an address.

    Attributes:
        count: how many.
    """

    def __init__(self, request: bytes, handle: Callable[[int], int]) -> None:
        values = list(wire.read_values(request))
        self.count = len(values)
        self._memory = bytearray(b"".join(value for value, _ in values))
        self.result = len(self._memory)
        self._memory += Value().pack()
        # Where a pointer is, and where in this memory it points.
        self._pointers: list[tuple[int, int]] = []
        self._contents: list[tuple[int, int]] = []
        for index, (value, tensor) in enumerate(values):
            if tensor is not None:
                (kind, *_) = VALUE.unpack(value)
                self._point(index * VALUE.size + _VALUE_AT, self._add(tensor, kind, handle))

    @property
    def size(self) -> int:
        """Bytes of memory that they take."""
        return len(self._memory)

    def at(self, base: int) -> bytearray:
        """The memory from the address ``base``, a multiple of 64, on; the arguments come first."""
        for place, target in self._pointers:
            _POINTER.pack_into(self._memory, place, base + target)
        return self._memory

    def contents(self, read: Callable[[int, int], bytes], base: int) -> bytes:
        """What is in the tensors that aren't on the device, each padded to 8 bytes.

        Args:
            read: gives the module's memory at an address, of a size.
            base: where the arguments are.
        """
        parts = []
        for place, size in self._contents:
            parts += [read(base + place, size), bytes(-size % 8)]
        return b"".join(parts)

    def _add(self, tensor: Tensor, kind: int, handle: Callable[[int], int]) -> int:
        """Where a tensor begins: with its ``DLTensor``, or with an object around that."""
        self._align()
        begin = len(self._memory)
        if kind == wire.TENSOR_OBJECT:
            self._memory += OBJECT.pack(_ONE_REFERENCE, kind, 0, 0)
        here = len(self._memory)
        data = handle(tensor.address) if tensor.content is None else 0
        rank = len(tensor.shape)
        self._memory += _TENSOR.pack(
            *(data, tensor.device, 0, rank, *tensor.dtype, 0, 0, tensor.byte_offset)
        )
        for place, numbers in ((_SHAPE_AT, tensor.shape), (_STRIDES_AT, tensor.strides)):
            self._point(here + place, len(self._memory))
            self._memory += struct.pack(f"<{rank}q", *numbers)
        if tensor.content is not None:
            self._align()
            self._point(here + _DATA_AT, len(self._memory))
            self._contents.append((len(self._memory), len(tensor.content)))
            self._memory += tensor.content
        return begin

    def _align(self) -> None:
        self._memory += bytes(-len(self._memory) % _ALIGNMENT)

    def _point(self, place: int, target: int) -> None:
        self._pointers.append((place, target))
