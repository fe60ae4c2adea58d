"""One GGUF file, read by ranges of rows."""

from __future__ import annotations

import weakref
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.checkpoints.gguf import blocks, superblocks
from edgec.checkpoints.gguf.header import Entry, parse_header
from edgec.errors import CheckpointError
from edgec.positioned import PositionedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

# Elements that are converted at a time: their float32 values stay in a second-level cache, and the
# arrays on the way are smaller than the 128 KiB from which malloc maps fresh pages.
_PIECE = 16 << 10

_DEQUANTIZERS: Mapping[str, Callable[[NDArray[np.uint8], NDArray[np.float32]], None]] = (
    MappingProxyType(
        {
            "F32": blocks.float32,
            "F16": blocks.float16,
            "BF16": blocks.bfloat16,
            "Q4_0": blocks.q4_0,
            "Q4_1": blocks.q4_1,
            "Q5_0": blocks.q5_0,
            "Q5_1": blocks.q5_1,
            "Q8_0": blocks.q8_0,
            "Q2_K": superblocks.q2_k,
            "Q3_K": superblocks.q3_k,
            "Q4_K": superblocks.q4_k,
            "Q5_K": superblocks.q5_k,
            "Q6_K": superblocks.q6_k,
        }
    )
)


class GgufFile:
    """An open GGUF file. The header is read and checked at once, the data on request.

    Every method may be called from any thread. Tensors have the names that the file gives them,
    and rows the order in which it holds them.

    Args:
        path: the file; a symbolic link is followed.

    Attributes:
        metadata: see :func:`edgec.checkpoints.gguf.values.read_metadata`.
        tensors: in the order of their data.

    Raises:
        CheckpointError: there is no such file, or it isn't a sound GGUF file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        self._file = PositionedFile.open(path)
        try:
            metadata, tensors = parse_header(self._read, self._file.nbytes, self.where)
        except BaseException:
            self._file.close()
            raise
        self._close = weakref.finalize(self, self._file.close)
        self.metadata: dict[str, Any] = metadata
        self.tensors: dict[str, Entry] = tensors

    def rows_into(self, name: str, start: int, step: int, out: NDArray[np.float32]) -> None:
        """Read rows ``start``, ``start + step``, ... as float32; see :meth:`pieces`.

        With a step the rows between are read too, and dropped.

        Args:
            name: of a tensor.
            start: first row; first element of a 1-D tensor.
            step: from one row to the next.
            out: C-contiguous float32 ``(rows, *shape[1:])``; of as many rows as are read.

        Raises:
            CheckpointError: edgec can't read the tensor's type, or reading failed.
        """
        entry = self.tensors[name]
        dequantize = _DEQUANTIZERS.get(entry.type.name)
        if dequantize is None:
            raise CheckpointError(
                f"tensor {name}: its type is {entry.type.name}; edgec reads "
                f"{', '.join(_DEQUANTIZERS)}",
                where=self.where,
                remedy="use a file of another quantization, such as Q4_0 or Q4_K_M",
            )
        target = out.reshape(-1, entry.type.block)
        done = 0
        # Scales may be infinite or no numbers: whoever stores the values refuses them by row.
        with np.errstate(invalid="ignore", over="ignore"):
            for raw in self.pieces(name, start, out.shape[0], step):
                dequantize(raw, target[done : done + raw.shape[0]])
                done += raw.shape[0]

    def pieces(
        self, name: str, start: int, count: int, step: int = 1
    ) -> Iterator[NDArray[np.uint8]]:
        """The blocks of ``count`` rows from ``start`` on, ``(n, bytes of a block)`` at a time.

        A row may come in several pieces where it is alone, and a 1-D tensor counts as rows of one
        element: ``start`` then has to be the first element of a block. Rows of a tensor with more
        axes are those of its last one, counted through.
        """
        entry = self.tensors[name]
        kind = entry.type
        width = entry.shape[-1] if len(entry.shape) > 1 else 1
        if step > 1:
            yield from self._strided(entry, start, count, step, width // kind.block)
            return
        first, total = start * width, count * width
        assert first % kind.block == total % kind.block == 0, (name, start, count)
        offset, missing = entry.begin + first // kind.block * kind.nbytes, total // kind.block
        limit = max(1, _PIECE // kind.block)
        while missing:
            number = min(limit, missing)
            raw = np.frombuffer(self._read(offset, number * kind.nbytes), np.uint8)
            yield raw.reshape(number, kind.nbytes)
            offset += number * kind.nbytes
            missing -= number

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        self._close()

    def _strided(
        self, entry: Entry, start: int, count: int, step: int, row_blocks: int
    ) -> Iterator[NDArray[np.uint8]]:
        kind = entry.type
        row_bytes = row_blocks * kind.nbytes
        at_once = max(1, _PIECE // (row_blocks * kind.block * step))
        for done in range(0, count, at_once):
            number = min(at_once, count - done)
            # The last row's followers may lie behind the end of the tensor.
            rows = (number - 1) * step + 1
            offset = entry.begin + (start + done * step) * row_bytes
            raw = np.frombuffer(self._read(offset, rows * row_bytes), np.uint8)
            chosen = np.ascontiguousarray(raw.reshape(rows, row_bytes)[::step])
            yield chosen.reshape(-1, kind.nbytes)

    def _read(self, offset: int, count: int) -> bytes:
        raw = np.empty(count, np.uint8)
        self._file.read_into(raw, offset)
        return raw.tobytes()
