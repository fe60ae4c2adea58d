"""The weights of an artifact as TVM tensors, without a copy where the format allows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.ir.load import load_tvm
from edgec.layouts.shards import ALIGNMENT
from edgec.layouts.tensor_cache import TensorCache
from edgec.runtime.pages import map_files

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
        load_tvm()
        import tvm  # noqa: PLC0415 - after load_tvm

        view = self._cache.array(name)
        if view.ctypes.data % ALIGNMENT:
            return tvm.runtime.tensor(view, tvm.cpu())
        self._views.append(view)  # the memory must outlive the tensor
        return tvm.runtime.from_dlpack(view)
