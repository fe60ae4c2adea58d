"""A model folder with quantized weights, as a checkpoint of float tensors."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.checkpoints.checkpoint import Checkpoint, RowReader, TensorInfo, row_span
from edgec.checkpoints.folder import FolderCheckpoint, read_config
from edgec.checkpoints.quantized.format import Coded
from edgec.checkpoints.quantized.formats import read_format
from edgec.checkpoints.quantized.stored import Stored
from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from edgec.checkpoints.codes import Codes, CodesForm
    from edgec.checkpoints.quantized.format import Format, Layout, Restored


def open_folder(folder: Path) -> Checkpoint:
    """Open a model folder, whether its weights are floats or quantized.

    Raises:
        UnsupportedModelError: they are quantized in a way that edgec can't read.
        CheckpointError: the config or the weights are missing or damaged.
    """
    # Before the weights are looked for: some methods store them in files of other names.
    form = read_format(read_config(folder), str(folder))
    checkpoint = FolderCheckpoint(folder)
    return checkpoint if form is None else RestoredCheckpoint(checkpoint, form)


class RestoredCheckpoint(RowReader):
    """The float tensors that quantized ones stand for; others pass through.

    Args:
        folder: with the stored tensors.
        form: how they are quantized.
    """

    def __init__(self, folder: FolderCheckpoint, form: Format) -> None:
        self.folder = folder.folder
        self.where = folder.where
        self.config: dict[str, Any] = folder.config
        self._stored_in = folder
        self._form = form
        self._lock = threading.Lock()
        self._contents: tuple[Stored, Layout, list[str]] | None = None
        self._restored: dict[str, Restored] = {}

    def names(self) -> list[str]:
        """The names of the float tensors, sorted; see :meth:`Checkpoint.names`."""
        return list(self._sorted_out()[2])

    def info(self, name: str) -> TensorInfo:
        """The float tensor, with the file and the size of what it is computed from."""
        stored, layout, _ = self._sorted_out()
        parts = layout.restored.get(name)
        if parts is None:
            info = self._stored_in.info(name)
            if info.dtype.startswith("F8"):
                raise stored.damaged(name, f"is {info.dtype} and no scale is stored with it")
            return info
        tensor = self._tensor(name)
        nbytes = sum(stored.info(part).nbytes for part in parts)
        return TensorInfo(name, tensor.shape, tensor.dtype, stored.info(parts[0]).file, nbytes)

    def rows_into(self, name: str, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Compute rows ``[start, stop)`` as float32; see :meth:`Checkpoint.rows_into`."""
        info = self.info(name)
        if name not in self._sorted_out()[1].restored:
            self._stored_in.rows_into(name, start, stop, out)
            return
        row_span(info, start, stop, out)
        # Beyond float32's range a product becomes an infinity, which the quantizer refuses.
        with np.errstate(over="ignore", invalid="ignore"):
            self._tensor(name).rows_into(start, stop, out)

    def codes(self, name: str) -> CodesForm | None:
        """The form of a tensor's codes; see :meth:`edgec.checkpoints.codes.HasCodes.codes`.

        Zero points are looked at, to say whether there are any that matter: a few bytes per group.
        """
        self.info(name)
        if name not in self._sorted_out()[1].restored:
            return None
        tensor = self._tensor(name)
        return tensor.form() if isinstance(tensor, Coded) else None

    def code_rows(self, name: str, start: int, stop: int) -> Codes:
        """Rows of the codes; see :meth:`edgec.checkpoints.codes.HasCodes.code_rows`."""
        tensor = self._tensor(name)
        assert isinstance(tensor, Coded), name
        return tensor.code_rows(start, stop)

    def files(self) -> list[Path]:
        """See :meth:`FolderCheckpoint.files`."""
        return self._stored_in.files()

    def _tensor(self, name: str) -> Restored:
        with self._lock:
            tensor = self._restored.get(name)
        if tensor is None:
            # Made twice if two threads come at once: it is small, and both are the same.
            tensor = self._form.restore(name, self._sorted_out()[0])
            with self._lock:
                tensor = self._restored.setdefault(name, tensor)
        return tensor

    def _sorted_out(self) -> tuple[Stored, Layout, list[str]]:
        with self._lock:
            if self._contents is None:
                stored = Stored(self._stored_in)
                layout = self._form.layout(stored.names)
                self._contents = (stored, layout, self._float_names(stored, layout))
            return self._contents

    def _float_names(self, stored: Stored, layout: Layout) -> list[str]:
        parts = {part for names in layout.restored.values() for part in names}
        twice = sorted((layout.restored.keys() & stored.names) - parts)
        if twice:
            raise CheckpointError(
                f"tensor {twice[0]} is stored as it is and in quantized form",
                where=self.where,
                remedy="use a checkpoint that holds each tensor once",
            )
        empty = {name for name in layout.biases & stored.names if _is_zero(stored, name)}
        plain = stored.names - parts - layout.unused - empty
        return sorted(plain | layout.restored.keys())


def _is_zero(stored: Stored, name: str) -> bool:
    info = stored.info(name)
    if len(info.shape) != 1 or info.dtype not in ("F16", "BF16", "F32"):
        return False
    raw = np.empty(info.nbytes, np.uint8)
    stored.read(name, 0, raw)
    return not raw.any()
