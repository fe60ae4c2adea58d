"""A tensor that a host function is given: in device memory, or in this process."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# DLPack's type codes. NumPy has no bfloat16: its bits are shown.
_LETTERS = {0: "i", 1: "u", 2: "f", 4: "u", 6: "?"}


@dataclass
class Tensor:
    """What a host function gets as a ``DLTensor``.

    Attributes:
        address: of its memory, ``byte_offset`` before the first element.
        byte_offset: of the first element.
        device: type of the device that the library sees, as DLPack numbers them.
        shape: in elements.
        strides: in elements.
        dtype: DLPack's type code, bits and lanes.
        content: of a tensor in this process; None for one in device memory.
    """

    address: int
    byte_offset: int
    device: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: tuple[int, int, int]
    content: memoryview | None

    @property
    def nbytes(self) -> int:
        """Size of the elements in bytes, rounded up."""
        _, bits, lanes = self.dtype
        return (math.prod(self.shape) * bits * lanes + 7) // 8

    @property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        """The element's type; bfloat16 and the 8-bit floats are shown as their bits."""
        code, bits, _ = self.dtype
        letter = _LETTERS.get(code, "u")
        return np.dtype("?" if letter == "?" else f"<{letter}{bits // 8}")

    def numpy(self) -> npt.NDArray[np.generic]:
        """The elements, shape :attr:`shape` (with the lanes last if there are several).

        It shows device memory itself, so that later calls change it; copy what has to stay.
        """
        lanes = self.dtype[2]
        shape = self.shape if lanes == 1 else (*self.shape, lanes)
        if self.content is not None:
            source = self.content[self.byte_offset :]
        elif self.nbytes == 0:
            return np.empty(shape, self.numpy_dtype)
        else:
            memory = (ctypes.c_char * self.nbytes).from_address(self.address + self.byte_offset)
            source = memoryview(memory)
        return np.frombuffer(source, self.numpy_dtype, math.prod(shape)).reshape(shape)
