"""The weights of an artifact as TVM tensors, without a copy where the format allows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.ir.load import load_tvm
from edgec.layouts.tensor_cache import TensorCache

if TYPE_CHECKING:
    from pathlib import Path

_ALIGNMENT = 64
"""Bytes: what TVM's generated code assumes of every buffer."""


class MappedWeights:
    """Weights of a folder with ``tensor-cache.json``, mapped copy-on-write.

    The shards are read from the page cache and shared between processes. A tensor that doesn't
    begin at a multiple of 64 bytes (the format has no padding) is copied.
    """

    def __init__(self, folder: Path) -> None:
        # Copy-on-write: TVM takes writable memory only, but nothing writes to weights.
        self._cache = TensorCache(folder, mode="c")
        self._views: list[Any] = []

    def tensor(self, name: str) -> Any:
        """A tensor by its name in the library's metadata.

        Raises:
            CheckpointError: the folder doesn't hold it.
        """
        load_tvm()
        import tvm  # noqa: PLC0415 - after load_tvm

        view = self._cache.array(name)
        if view.ctypes.data % _ALIGNMENT:
            return tvm.runtime.tensor(view, tvm.cpu())
        self._views.append(view)  # the memory must outlive the tensor
        return tvm.runtime.from_dlpack(view)
