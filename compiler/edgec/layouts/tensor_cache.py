"""Read a weight folder: ``tensor-cache.json`` and its shards."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgec.errors import CheckpointError, VerificationError
from edgec.layouts.cache_index import REMEDY, ShardRecord, TensorRecord, read_cache_index

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

_CHUNK = 4 << 20


class TensorCache:
    """The tensors of a weight folder, as views of memory-mapped files.

    Opening checks the index and the sizes of the files; no weight is read before it is used.

    Args:
        folder: with ``tensor-cache.json`` and ``params_shard_*.bin``.
        mode: ``"r"`` gives read-only arrays; ``"c"`` maps copy-on-write, for libraries that take
            writable memory only: what is written there never reaches the files.

    Attributes:
        metadata: the free part of the index, such as ``ParamBytes``.

    Raises:
        CheckpointError: a file is missing or damaged, or the index contradicts itself.
    """

    def __init__(self, folder: Path, *, mode: Literal["r", "c"] = "r") -> None:
        index = read_cache_index(folder)
        self.metadata = index.metadata
        self._folder = folder
        self._mode: Literal["r", "c"] = mode
        self._shards = index.records
        self._places: dict[str, tuple[ShardRecord, TensorRecord]] = {
            record.name: (shard, record) for shard in index.records for record in shard.records
        }
        self._maps: dict[str, npt.NDArray[np.uint8]] = {}
        for shard in index.records:
            self._check_size(shard)

    def names(self) -> list[str]:
        """The tensors, in the order of the index."""
        return list(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return self._record(name)[1].shape

    def dtype(self, name: str) -> str:
        """A tensor's type, by numpy's name."""
        return self._record(name)[1].dtype

    def files(self) -> list[tuple[Path, int]]:
        """The shards and their sizes in bytes."""
        return [(self._folder / shard.file, shard.nbytes) for shard in self._shards]

    def use_memory(self, contents: Mapping[Path, npt.NDArray[np.uint8]]) -> None:
        """Take the tensors from memory that holds the shards, in place of mapping these.

        Args:
            contents: of each file that :meth:`files` names; read-only or not.
        """
        self._maps = {path.name: content for path, content in contents.items()}

    def array(self, name: str) -> npt.NDArray[Any]:
        """A tensor as a view of its mapped file, without a copy.

        Tensors of folders that others made follow each other without padding: a view may begin
        at an address that is no multiple of its element's size, which numpy allows and other
        libraries may not.

        Raises:
            CheckpointError: there is no such tensor.
        """
        shard, record = self._record(name)
        if shard.file not in self._maps:
            self._maps[shard.file] = np.memmap(self._folder / shard.file, np.uint8, self._mode)
        stored = np.dtype(record.dtype).newbyteorder("<")
        return np.ndarray(record.shape, stored, self._maps[shard.file].data, record.offset)

    def verify(self) -> None:
        """Read every shard and compare its MD5 sum.

        Raises:
            VerificationError: a shard has other bytes than the index says.
        """
        for shard in self._shards:
            path = self._folder / shard.file
            digest = hashlib.md5(usedforsecurity=False)
            buffer = memoryview(bytearray(_CHUNK))
            with path.open("rb", buffering=0) as file:
                while count := file.readinto(buffer):
                    digest.update(buffer[:count])
            if shard.md5sum is not None and digest.hexdigest() != shard.md5sum:
                what = f"its MD5 sum is {digest.hexdigest()} in place of {shard.md5sum}"
                raise VerificationError(what, where=str(path), remedy=REMEDY)

    def _record(self, name: str) -> tuple[ShardRecord, TensorRecord]:
        if name not in self._places:
            what = f"has no tensor {name}"
            raise CheckpointError(what, where=str(self._folder), remedy=REMEDY)
        return self._places[name]

    def _check_size(self, shard: ShardRecord) -> None:
        path = self._folder / shard.file
        try:
            nbytes = path.stat().st_size
        except OSError as error:
            what = f"can't be read: {error.strerror}"
            raise CheckpointError(what, where=str(path), remedy=REMEDY) from error
        if nbytes != shard.nbytes:
            what = f"has {nbytes} bytes in place of {shard.nbytes}"
            raise CheckpointError(what, where=str(path), remedy=REMEDY)
