"""Read a quantized checkpoint by ranges of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.errors import CheckpointError
from edgec.parallel import Workspace
from edgec.positioned import PositionedFile
from edgec.quantization.nibbles import unpack_nibbles
from edgec.quantization.store import DATA, REMEDY, header, read_index, segments
from edgec.quantization.tensors import QuantizedTensor

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from typing_extensions import Self

    from edgec.quantization.schemes import FloatType, TensorScheme


class QuantizedCheckpoint:
    """A finished quantized checkpoint, open for reading; a context manager.

    Every method may be called from any thread.

    Args:
        folder: with ``quantized.json`` and ``quantized.safetensors``.

    Raises:
        CheckpointError: a file is missing, damaged, or doesn't belong to the other.
    """

    def __init__(self, folder: Path) -> None:
        index = read_index(folder)
        self.dtype: FloatType = index.dtype
        self._tensors = {tensor.name: tensor for tensor in index.tensors}
        self._segments = segments(index)
        start = header(self._segments)
        self._data_start = len(start)
        self._file = PositionedFile.open(folder / DATA)
        try:
            self._check(start)
        except BaseException:
            self._file.close()
            raise

    def names(self) -> list[str]:
        """The parameters, in the model's order."""
        return list(self._tensors)

    def scheme(self, name: str) -> TensorScheme | None:
        """How a parameter is stored; None when it is plain."""
        return self._tensors[name].scheme

    def shape(self, name: str) -> tuple[int, ...]:
        """The parameter's shape, ``(out, in)`` for matrices."""
        return self._tensors[name].shape

    def quantized(self, name: str, start: int, stop: int) -> QuantizedTensor:
        """Rows ``[start, stop)`` of a quantized parameter, in new arrays."""
        stored = self._tensors[name]
        assert stored.bits is not None, name
        packed = self.stored(f"{name}#codes", start, stop)
        codes = unpack_nibbles(packed) if stored.bits == 4 else packed
        scales = self.stored(f"{name}#scales", start, stop)
        zeros = self.stored(f"{name}#zeros", start, stop) if stored.zeros else None
        return QuantizedTensor(codes, scales, stored.bits, zeros)

    def plain(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows (elements, in one dimension) ``[start, stop)`` of a plain parameter, a new array."""
        assert self.scheme(name) is None, name
        return self.stored(name, start, stop)

    def stored(
        self, array: str, start: int, stop: int, workspace: Workspace | None = None
    ) -> npt.NDArray[Any]:
        """Rows of one array as the data file holds it; see :mod:`edgec.quantization.store`.

        Args:
            array: ``p#codes``, ``p#scales`` or ``p#zeros`` of a quantized parameter ``p``, or the
                name of a plain one.
            start: the first row.
            stop: the row after the last one.
            workspace: where the result lies until the next call; without it, in new memory.
        """
        segment = self._segments[array]
        assert 0 <= start <= stop <= segment.shape[0], (array, start, stop)
        shape = (stop - start, *segment.shape[1:])
        rows = (workspace or Workspace()).array("stored", shape, segment.dtype)
        self._file.read_into(rows, self._data_start + segment.offset + start * segment.row_bytes)
        return rows

    def close(self) -> None:
        """Close the data file; calling it again does nothing."""
        self._file.close()

    def _check(self, start: bytes) -> None:
        expected = len(start) + sum(segment.nbytes for segment in self._segments.values())
        if self._file.nbytes != expected:
            raise CheckpointError(
                f"has {self._file.nbytes} bytes in place of {expected}",
                where=str(self._file.path),
                remedy=REMEDY,
            )
        found = np.empty(len(start), np.uint8)
        self._file.read_into(found, 0)
        if found.tobytes() != start:
            raise CheckpointError(
                "holds other tensors than quantized.json says",
                where=str(self._file.path),
                remedy=REMEDY,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
