"""A model folder as Hugging Face lays it out: config, weights in one file or in shards."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgec.checkpoints.checkpoint import RowReader, TensorInfo
from edgec.checkpoints.index import INDEX_NAME, read_index
from edgec.checkpoints.json_file import read_json_object
from edgec.checkpoints.problems import report
from edgec.checkpoints.safetensors_file import SafetensorsFile
from edgec.checkpoints.wrapped_names import plain_name, stored_name
from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

CONFIG_NAME = "config.json"
SINGLE_NAME = "model.safetensors"
TOKENIZER_NAMES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's ``config.json``.

    Raises:
        CheckpointError: it is missing or isn't a JSON object.
    """
    return read_json_object(
        folder / CONFIG_NAME, missing="give the folder of a model in Hugging Face format"
    )


def tokenizer_files(folder: Path) -> list[Path]:
    """Those of the tokenizer's and generation's files that the folder has."""
    return [folder / name for name in TOKENIZER_NAMES if (folder / name).is_file()]


class FolderCheckpoint(RowReader):
    """The weights of a model folder.

    The config and the index are read at once. Each weight file's header is read when one of its
    tensors is first asked for; :meth:`names` reads them all and checks them against the index.

    Args:
        folder: the model folder; its files may be symbolic links.

    Raises:
        CheckpointError: the config or the weights are missing, a shard is missing, or the weights
            are pickle files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.where = str(folder)
        self.config = read_config(folder)
        self._shard_of = _locate(folder)
        self._shards = sorted(set((self._shard_of or {"": SINGLE_NAME}).values()))
        self._open: dict[str, SafetensorsFile] = {}
        self._names: list[str] | None = None
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The names of all tensors, sorted; see :meth:`Checkpoint.names`."""
        if self._names is None:
            held = {shard: self._file(shard).names() for shard in self._shards}
            if self._shard_of is not None:
                self._check_index(self._shard_of, held)
            self._names = sorted(plain_name(name) for names in held.values() for name in names)
        return list(self._names)

    def info(self, name: str) -> TensorInfo:
        """What is known of a tensor; see :meth:`Checkpoint.info`."""
        file, stored = self._holder(name)
        return replace(file.info(stored), name=name)

    def rows_into(self, name: str, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Read rows ``[start, stop)`` as float32; see :meth:`Checkpoint.rows_into`."""
        file, stored = self._holder(name)
        file.rows_into(stored, start, stop, out)

    def bytes_into(self, name: str, offset: int, out: NDArray[np.uint8]) -> None:
        """Read a tensor's bytes as they are stored; see :meth:`SafetensorsFile.bytes_into`."""
        file, stored = self._holder(name)
        file.bytes_into(stored, offset, out)

    def files(self) -> list[Path]:
        """The config, the index if there is one, and the weight files."""
        index = [INDEX_NAME] if self._shard_of is not None else []
        return [self.folder / name for name in (CONFIG_NAME, *index, *self._shards)]

    def _holder(self, name: str) -> tuple[SafetensorsFile, str]:
        """The file of a tensor, and what that calls it."""
        if self._shard_of is None:
            single = self._file(SINGLE_NAME)
            return single, stored_name(name, single)
        name = stored_name(name, self._shard_of)
        shard = self._shard_of.get(name)
        if shard is None:
            raise CheckpointError(
                f"tensor {name} is not in the weight_map",
                where=str(self.folder / INDEX_NAME),
                remedy="check that the weights belong to the model of config.json",
            )
        file = self._file(shard)
        if name not in file:
            self._check_index({name: shard}, {shard: []})
        return file, name

    def _file(self, shard: str) -> SafetensorsFile:
        with self._lock:
            file = self._open.get(shard)
            if file is None:
                file = self._open[shard] = SafetensorsFile(self.folder / shard)
            return file

    def _check_index(self, shard_of: dict[str, str], held: dict[str, list[str]]) -> None:
        sets = {shard: set(names) for shard, names in held.items()}
        problems = [
            f"tensor {name} is not in {shard}, where the index says it is"
            for name, shard in shard_of.items()
            if name not in sets[shard]
        ]
        problems += [
            f"tensor {name} is in {shard}, of which the index doesn't know"
            for shard, names in held.items()
            for name in names
            if shard_of.get(name) != shard
        ]
        report(
            problems,
            where=str(self.folder / INDEX_NAME),
            summary="tensors are not where the index says",
            remedy="download the index and the shards again, from the same revision",
        )


def _locate(folder: Path) -> dict[str, str] | None:
    """Find the weights: the shard of each tensor, or None if one file has them all."""
    single = (folder / SINGLE_NAME).is_file()
    if not (folder / INDEX_NAME).is_file():
        if single:
            return None
        raise _no_weights(folder)
    shard_of = read_index(folder / INDEX_NAME)
    shards = sorted(set(shard_of.values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing and single:
        return None
    report(
        [f"shard {shard} is missing, though {INDEX_NAME} names it" for shard in missing],
        where=str(folder),
        summary=f"of {len(shards):,} shards are missing",
        remedy="download the missing files into the folder",
    )
    return shard_of


def _no_weights(folder: Path) -> CheckpointError:
    where = str(folder)
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        return CheckpointError(
            f"can't be listed ({error.strerror})", where=where, remedy="check its permissions"
        )
    pickles = [name for name in names if name.endswith(_PICKLES)]
    tensors = [name for name in names if name.endswith(".safetensors")]
    if tensors:
        return CheckpointError(
            f"has {tensors[0]} but neither {SINGLE_NAME} nor {INDEX_NAME}, which says what is where",
            where=where,
            remedy=f"download {INDEX_NAME}, or rename a file that holds the whole model",
        )
    if pickles:
        return CheckpointError(
            f"has its weights as pickle ({pickles[0]}), a format that can run any code when it is "
            "read, so edgec refuses it",
            where=where,
            remedy="look for a safetensors version of the model or, if you trust the file, convert "
            "it with transformers: AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW)",
        )
    return CheckpointError(
        f"has no weights: neither {SINGLE_NAME} nor {INDEX_NAME} is there",
        where=where,
        remedy="download the model's safetensors files; other formats are not read",
    )
