"""Write a quantized checkpoint in blocks of rows, from any thread and in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.files import pretty_json, write_atomic
from edgec.positioned import PositionedFile
from edgec.quantization.nibbles import pack_nibbles
from edgec.quantization.store import DATA, INDEX, StoreIndex, header, segments

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt
    from typing_extensions import Self

    from edgec.parallel import Workspace
    from edgec.quantization.tensors import QuantizedTensor


class QuantizedCheckpointWriter:
    """Makes the two files of a quantized checkpoint; a context manager.

    The data file has its full size and its header from the start. The index is written by
    :meth:`finish`, so a folder without one is a checkpoint that was never finished.

    Args:
        folder: an existing folder.
        index: what will be written.
    """

    def __init__(self, folder: Path, index: StoreIndex) -> None:
        self._folder = folder
        self._index = index
        self._segments = segments(index)
        start = header(self._segments)
        self._data_start = len(start)
        nbytes = sum(segment.nbytes for segment in self._segments.values())
        self._file = PositionedFile.create(folder / DATA, self._data_start + nbytes)
        self._file.write(start, 0)

    def write(self, name: str, start: int, tensor: QuantizedTensor, workspace: Workspace) -> None:
        """Write rows of a quantized parameter, beginning with row ``start``."""
        codes = pack_nibbles(tensor.codes, workspace) if tensor.bits == 4 else tensor.codes
        self._write(f"{name}#codes", start, codes)
        self._write(f"{name}#scales", start, tensor.scales)
        zeros = f"{name}#zeros"
        if zeros in self._segments:
            # Rows without zero points can stand beside rows with them, in a fused matrix.
            none = np.zeros(tensor.scales.shape, np.int8)
            self._write(zeros, start, none if tensor.zeros is None else tensor.zeros)
        else:
            assert tensor.zeros is None, name

    def write_plain(self, name: str, start: int, values: npt.NDArray[Any]) -> None:
        """Write rows of a plain parameter, beginning with row ``start``."""
        self._write(name, start, values)

    def finish(self) -> None:
        """Write the index: every row has been written."""
        data = self._index.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        write_atomic(self._folder / INDEX, pretty_json({"schema": self._index.schema_, **data}))

    def _write(self, name: str, start: int, rows: npt.NDArray[Any]) -> None:
        segment = self._segments[name]
        assert rows.dtype.name == segment.dtype, (name, rows.dtype)
        assert rows.shape[1:] == segment.shape[1:], (name, rows.shape)
        assert start + rows.shape[0] <= segment.shape[0], (name, start)
        self._file.write(rows, self._data_start + segment.offset + start * segment.row_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
