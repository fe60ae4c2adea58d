"""The weights of an artifact as TVM tensors, without a copy where the format allows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.layouts.shards import ALIGNMENT
from edgec.layouts.tensor_cache import TensorCache
from edgec.runtime.pages import map_files
from edgec.runtime.tvm_runtime import cpu, tensor, view

if TYPE_CHECKING:
    from pathlib import Path


class MappedWeights:
    """Weights of a folder with ``tensor-cache.json``, in memory.

    Tensors are used where their files lie in memory. Only one that doesn't begin at a multiple of
    64 bytes there is copied, as in folders of other makers, which have no padding.

    Args:
        folder: of the weights.
        resident: have all of them in memory at once, in huge pages if possible, because a
            processor will read them again and again; see :mod:`edgec.runtime.pages`. Otherwise
            each is read when it is first used.
    """

    def __init__(self, folder: Path, *, resident: bool = False) -> None:
        self._cache = TensorCache(folder)
        self._cache.use_memory(map_files(self._cache.files(), resident=resident))
        self._views: list[Any] = []

    def tensor(self, name: str) -> Any:
        """A tensor by its name in the library's metadata.

        Raises:
            CheckpointError: the folder doesn't hold it.
        """
        stored = self._cache.array(name)
        if stored.ctypes.data % ALIGNMENT:
            return tensor(stored, cpu())
        self._views.append(stored)  # the memory must outlive the tensor
        return view(stored)
