"""A GGUF file as a checkpoint: the tensors of the model that it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.checkpoints.checkpoint import RowReader, TensorInfo, row_span
from edgec.checkpoints.codes import Codes, CodesForm
from edgec.checkpoints.gguf.architectures import find_architecture
from edgec.checkpoints.gguf.blocks import q4_0_codes, q5_0_codes, q8_0_codes, stored_halves
from edgec.checkpoints.gguf.config import config_of
from edgec.checkpoints.gguf.file import GgufFile
from edgec.checkpoints.gguf.names import Heads, Stored, map_names
from edgec.checkpoints.json_file import read_json_object
from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CONFIG_NAME = "config.json"
# The narrowest codes that edgec has which hold those of the type.
_CODES = {"Q4_0": (4, q4_0_codes), "Q5_0": (8, q5_0_codes), "Q8_0": (8, q8_0_codes)}
_GROUP = 32
_SPLIT = "split.count"


class GgufCheckpoint(RowReader):
    """The weights of a GGUF file.

    Names, shapes and the order of rows are those of the Hugging Face checkpoint. llama.cpp
    interleaves the halves of each head of a Llama's queries and keys, sorts GPT-NeoX's fused queries,
    keys and values, stores the experts of a layer as one tensor, and adds 1 to the weights of Gemma's
    norms: all of it is undone as rows are read. Interleaved rows are read twice, once for each half;
    the system's cache has them the second time.

    A ``config.json`` beside the file is used in place of the metadata.

    Args:
        path: the file.

    Raises:
        CheckpointError: it is missing, damaged or one part of several, or lacks metadata.
        UnsupportedModelError: an architecture that edgec can't read from GGUF.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.where = str(path)
        self.file = GgufFile(path)
        metadata = self.file.metadata
        parts = metadata.get(_SPLIT, 1)
        if parts not in (0, 1):
            raise CheckpointError(
                f"is one of {parts} parts of a model",
                where=self.where,
                remedy="merge them with llama.cpp's llama-gguf-split --merge",
            )
        _, architecture = find_architecture(metadata, self.where)
        self._config_file = path.parent / CONFIG_NAME
        self._has_config = self._config_file.is_file()
        self.config: dict[str, Any] = (
            read_json_object(self._config_file, missing="give a config.json")
            if self._has_config
            else config_of(metadata, self.file.tensors, self._vector, self.where)
        )
        self._stored = map_names(
            self.file.tensors, architecture, _heads(self.config, self.where), self.where
        )

    def names(self) -> list[str]:
        """The names of all tensors, sorted; those that follow from the config are left out."""
        return sorted(self._stored)

    def info(self, name: str) -> TensorInfo:
        """What the header says; ``dtype`` is GGUF's name of the type, such as ``"Q4_0"``."""
        stored = self._find(name)
        kind = self.file.tensors[stored.name].type.name
        return TensorInfo(name, stored.shape, kind, self.path.name, stored.nbytes)

    def rows_into(self, name: str, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Read rows ``[start, stop)`` as float32; see :meth:`Checkpoint.rows_into`."""
        info = self.info(name)
        row_span(info, start, stop, out)
        stored = self._find(name)
        if len(info.shape) == 1 and self.file.tensors[stored.name].type.block > 1:
            # A vector of blocks: norms and biases, which are never quantized.
            raise CheckpointError(
                f"tensor {name}: it is a vector of type {info.dtype}",
                where=self.where,
                remedy="convert the model again",
            )
        for place, first, count, step in stored.order.runs(info.shape[0], start, stop):
            self.file.rows_into(stored.name, first, step, out[place : place + count])
        if stored.raised:
            np.subtract(out, 1, out=out)

    def codes(self, name: str) -> CodesForm | None:
        """Q4_0, Q5_0 and Q8_0 are codes with a scale per 32; see :class:`HasCodes`."""
        info = self.info(name)
        known = _CODES.get(info.dtype)
        if known is None or len(info.shape) != 2 or self._find(name).raised:
            return None
        return CodesForm(known[0], _GROUP, "float16")

    def code_rows(self, name: str, start: int, stop: int) -> Codes:
        """The codes of rows ``[start, stop)`` as the file holds them; see :class:`HasCodes`."""
        info, stored = self.info(name), self._find(name)
        bits, read_codes = _CODES[info.dtype]
        columns = info.shape[1]
        codes = np.empty((stop - start, columns), np.int8)
        scales = np.empty((stop - start, columns // _GROUP), np.float16)
        for place, first, count, step in stored.order.runs(info.shape[0], start, stop):
            blocks = codes[place : place + count].reshape(-1, _GROUP)
            factors = scales[place : place + count].reshape(-1, 1)
            done = 0
            for raw in self.file.pieces(stored.name, first, count, step):
                end = done + raw.shape[0]
                read_codes(raw, blocks[done:end])
                factors[done:end] = stored_halves(raw, 0)
                done = end
        return Codes(codes, scales, None, bits, _GROUP)

    def files(self) -> list[Path]:
        """The file, and the config if it lies beside it."""
        return [*([self._config_file] if self._has_config else []), self.path]

    def _find(self, name: str) -> Stored:
        stored = self._stored.get(name)
        if stored is None:
            raise CheckpointError(
                f"tensor {name} is not in this file",
                where=self.where,
                remedy="check that the weights belong to the model of config.json",
            )
        return stored

    def _vector(self, name: str) -> NDArray[np.float32]:
        """The numbers of a tensor with one axis."""
        out = np.empty(self.file.tensors[name].shape, np.float32)
        self.file.rows_into(name, 0, 1, out)
        return out


def _heads(config: dict[str, Any], where: str) -> Heads:
    queries = config.get("num_attention_heads")
    keys = config.get("num_key_value_heads", queries)
    for count in (queries, keys):
        if type(count) is not int or count <= 0:
            raise CheckpointError(
                "config.json doesn't say how many heads attention has",
                where=where,
                remedy="put the config.json of this very model beside the file",
            )
    return Heads(int(queries or 0), int(keys or 0))
