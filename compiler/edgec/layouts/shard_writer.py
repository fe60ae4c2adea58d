"""Write a weight folder: ``tensor-cache.json`` and its shards."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.files import pretty_json, write_atomic
from edgec.layouts.cache_index import INDEX
from edgec.layouts.specs import nbytes
from edgec.positioned import PositionedFile, as_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgec.layouts.shards import Shard

_BLOCK = 2 << 20
"""Bytes of a huge page, on x86-64 and on Arm with pages of 4 KiB."""


class TensorCacheWriter:
    """Makes a weight folder, shard by shard; several threads may each write one.

    Args:
        folder: an existing folder.
        shards: what it will hold.
        metadata: free JSON for the index.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard], metadata: dict[str, Any]) -> None:
        self.shards = list(shards)
        self._folder = folder
        self._metadata = metadata
        self._md5: dict[str, str] = {}

    def write_shard(self, shard: Shard, pieces: Iterable[npt.NDArray[Any]]) -> None:
        """Write one file.

        Args:
            shard: one of ``shards``.
            pieces: C-contiguous little-endian arrays which, one after another, are the bytes of
                its tensors; none is of two tensors. Each is used before the next is asked for.

        Raises:
            BuildError: the disk is full.
        """
        # The format wants MD5 as a checksum of a download; nothing relies on it for safety.
        digest = hashlib.md5(usedforsecurity=False)
        with PositionedFile.create(self._folder / shard.file, shard.nbytes) as file:
            blocks = _Blocks(file)
            for raw in _with_padding(shard, pieces):
                digest.update(raw.data)
                blocks.write(raw)
            blocks.finish()
        self._md5[shard.file] = digest.hexdigest()

    def finish(self) -> None:
        """Write the index, after every shard: a folder without it was never finished."""
        records = [self._record(shard) for shard in self.shards]
        text = pretty_json({"metadata": self._metadata, "records": records})
        write_atomic(self._folder / INDEX, text)

    def _record(self, shard: Shard) -> dict[str, Any]:
        return {
            "dataPath": shard.file,
            "format": "raw-shard",
            "nbytes": shard.nbytes,
            "md5sum": self._md5[shard.file],
            "records": [
                {
                    "name": placement.spec.name,
                    "shape": list(placement.spec.shape),
                    "dtype": placement.spec.dtype,
                    "format": "raw",
                    "nbytes": nbytes(placement.spec),
                    "byteOffset": placement.offset,
                }
                for placement in shard.placements
            ],
        }


class _Blocks:
    """Writes a file from its beginning in large blocks that begin at multiples of their size.

    The page cache keeps what is written in pieces as large as the writes: so a file that was just
    written can be mapped with huge pages.
    """

    def __init__(self, file: PositionedFile) -> None:
        self._file = file
        self._block = np.empty(_BLOCK, np.uint8)
        self._written = self._held = 0

    def write(self, raw: npt.NDArray[np.uint8]) -> None:
        """Append bytes."""
        while raw.size:
            part = raw[: _BLOCK - self._held]
            self._block[self._held : self._held + part.size] = part
            self._held += part.size
            raw = raw[part.size :]
            if self._held == _BLOCK:
                self.finish()

    def finish(self) -> None:
        """Write what is held back."""
        self._file.write(self._block[: self._held], self._written)
        self._written += self._held
        self._held = 0


def _with_padding(
    shard: Shard, pieces: Iterable[npt.NDArray[Any]]
) -> Iterator[npt.NDArray[np.uint8]]:
    """The bytes of a file from its beginning to its end: pieces, and zeros between tensors."""
    written = 0
    remaining = iter(pieces)
    for placement in shard.placements:
        yield np.zeros(placement.offset - written, np.uint8)
        written = placement.offset
        end = written + nbytes(placement.spec)
        while written < end:
            raw = as_bytes(next(remaining))
            yield raw
            written += raw.nbytes
        assert written == end, (shard.file, placement)
    assert next(remaining, None) is None, shard.file
