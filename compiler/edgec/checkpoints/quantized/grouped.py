"""What GPTQ and AWQ share: codes with one scale and one zero point per group of inputs.

The value of a weight is ``(code - zero) * scale``. Codes and zero points have at most 8 bits and
scales are nearly always float16 or bfloat16, so the product is exact in float32; with float32 scales
it is rounded once. Kernels that work in float16 round it to that.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgec.checkpoints.codes import Codes, CodesForm
from edgec.checkpoints.dtypes import to_float32
from edgec.parallel import Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgec.checkpoints.quantized.stored import Stored

SCALE_DTYPES = ("F16", "BF16", "F32")
# Weights that are computed at a time: their temporaries stay in the second-level cache.
_BLOCK = 1 << 16


class _Scratch(threading.local):
    """Memory of a thread: a megabyte or two, allocated once."""

    def __init__(self) -> None:
        self.workspace = Workspace()


_SCRATCH = _Scratch()


@dataclass(frozen=True)
class Groups:
    """The stored form of a matrix of ``outputs`` x ``inputs`` weights.

    Attributes:
        module: its name without ``.weight``.
        outputs: rows of the float tensor.
        inputs: its columns, K.
        bits: of a code, 4 or 8.
        size: inputs that share a scale; the last group may have fewer.
    """

    module: str
    outputs: int
    inputs: int
    bits: int
    size: int

    @property
    def count(self) -> int:
        """Groups in a row."""
        return -(-self.inputs // self.size)


class Grouped(ABC):
    """A float matrix computed from codes; see :class:`edgec.checkpoints.quantized.format.Restored`.

    Args:
        groups: its form.
        stored: where its parts are; they were checked against the form.
    """

    def __init__(self, groups: Groups, stored: Stored) -> None:
        self.groups = groups
        self.shape = (groups.outputs, groups.inputs)
        self.stored = stored
        self._scales = f"{groups.module}.scales"
        self.dtype = stored.info(self._scales).dtype
        self._has_zeros: bool | None = None

    @abstractmethod
    def codes_into(self, start: int, out: NDArray[np.uint8], scratch: Workspace) -> None:
        """Unsigned codes of the rows from ``start`` on, ``out`` of them ``(n, inputs)``."""

    @abstractmethod
    def zeros_into(self, start: int, out: NDArray[np.uint8], scratch: Workspace) -> None:
        """Unsigned zero points of the rows from ``start`` on, ``(n, groups)``."""

    def order(self) -> NDArray[np.int32] | None:
        """The group of each input; None if groups are neighbours of equal number."""
        if self.groups.inputs % self.groups.size == 0:
            return None
        return np.arange(self.groups.inputs, dtype=np.int32) // np.int32(self.groups.size)

    def rows_into(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Rows ``[start, stop)`` as float32."""
        order = self.order()
        step = max(1, _BLOCK // self.groups.inputs)
        for row in range(start, stop, step):
            end = min(row + step, stop)
            self._block(row, out[row - start : end - start], order)

    def has_zeros(self) -> bool:
        """Whether any zero point differs from the middle of the codes; reads them all once."""
        if self._has_zeros is None:
            middle = 1 << (self.groups.bits - 1)
            step = max(1, _BLOCK // self.groups.count)
            self._has_zeros = any(
                bool((self._zeros(row, min(row + step, self.groups.outputs)) != middle).any())
                for row in range(0, self.groups.outputs, step)
            )
        return self._has_zeros

    def form(self) -> CodesForm | None:
        """The form of the codes; None where inputs that share a scale aren't neighbours."""
        if self.order() is not None:
            return None
        exact: Literal["float16", "float32"] = "float16" if self.dtype == "F16" else "float32"
        return CodesForm(self.groups.bits, self.groups.size, exact, self.has_zeros())

    def code_rows(self, start: int, stop: int) -> Codes:
        """Rows of the codes; those of GPTQ and AWQ from 0 on are moved to lie around 0."""
        form = self.form()
        assert form is not None, self.groups.module
        middle = np.uint8(1 << (form.bits - 1))
        codes = np.empty((stop - start, self.groups.inputs), np.uint8)
        self.codes_into(start, codes, _SCRATCH.workspace)
        # In the modulo arithmetic of bytes: read as signed, the results are right.
        np.subtract(codes, middle, out=codes)
        scales = np.empty((stop - start, self.groups.count), np.float32)
        self._scales_into(start, scales, _SCRATCH.workspace)
        zeros = (self._zeros(start, stop) - middle).view(np.int8) if form.zeros else None
        return Codes(
            codes.view(np.int8), scales.astype(form.scale_dtype), zeros, form.bits, form.group_size
        )

    def _block(self, start: int, out: NDArray[np.float32], order: NDArray[np.int32] | None) -> None:
        scratch = _SCRATCH.workspace
        count, columns = out.shape
        codes = scratch.array("codes", out.shape, np.uint8)
        self.codes_into(start, codes, scratch)
        out[:] = codes
        scales = scratch.array("scales", (count, self.groups.count), np.float32)
        self._scales_into(start, scales, scratch)
        zeros = scratch.array("zeros", scales.shape, np.float32)
        zeros[:] = self._zeros(start, start + count)
        if order is None:
            grouped = out.reshape(count, self.groups.count, -1)
            grouped -= zeros[..., None]
            grouped *= scales[..., None]
            return
        each = scratch.array("each", (count, columns), np.float32)
        np.take(zeros, order, axis=1, out=each, mode="clip")
        out -= each
        np.take(scales, order, axis=1, out=each, mode="clip")
        out *= each

    def _zeros(self, start: int, stop: int) -> NDArray[np.uint8]:
        scratch = _SCRATCH.workspace
        zeros: NDArray[np.uint8] = scratch.array(
            "zero points", (stop - start, self.groups.count), np.uint8
        )
        self.zeros_into(start, zeros, scratch)
        return zeros

    def _scales_into(self, start: int, out: NDArray[np.float32], scratch: Workspace) -> None:
        item = self.stored.sides.item(self._scales)
        raw = scratch.array("stored scales", out.shape, item)
        self.stored.sides.into(self._scales, start, start + len(out), raw)
        to_float32(raw, self.dtype, out.reshape(-1))
        self.stored.check_finite(self._scales, out)


def check_sizes(groups: Groups, stored: Stored) -> None:
    """Compare scales and zero points with the form of the codes.

    Raises:
        CheckpointError: they are missing or of other shapes.
    """
    shape = (groups.count, groups.outputs)
    stored.part(f"{groups.module}.scales", SCALE_DTYPES, shape)
    packed = (groups.count, groups.outputs * groups.bits // 32)
    stored.part(f"{groups.module}.qzeros", ("I32",), packed)
