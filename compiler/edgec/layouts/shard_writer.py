"""Write a weight folder: ``tensor-cache.json`` and its shards."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from edgec.files import pretty_json, write_atomic
from edgec.layouts.cache_index import INDEX
from edgec.layouts.specs import nbytes
from edgec.positioned import PositionedFile, as_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgec.layouts.shards import Shard


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
                its tensors. Each is used before the next is asked for.

        Raises:
            BuildError: the disk is full.
        """
        # The format wants MD5 as a checksum of a download; nothing relies on it for safety.
        digest = hashlib.md5(usedforsecurity=False)
        offset = 0
        with PositionedFile.create(self._folder / shard.file, shard.nbytes) as file:
            for piece in pieces:
                raw = as_bytes(piece)
                digest.update(raw.data)
                file.write(raw, offset)
                offset += raw.nbytes
        assert offset == shard.nbytes, (shard.file, offset)
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
