"""``tensor-cache.json``: its form, and the checks that make its offsets safe to use."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

INDEX = "tensor-cache.json"
REMEDY = "make the folder again or restore it from where it came"

DType = Literal[
    "float16", "float32", "float64", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64",
]  # fmt: skip


class TensorRecord(BaseModel):
    """One tensor of a shard; the attributes are those of the format."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    name: str
    shape: tuple[PositiveInt, ...]
    dtype: DType
    format: Literal["raw", "f32-to-bf16"]
    nbytes: PositiveInt
    offset: NonNegativeInt = Field(alias="byteOffset")


class ShardRecord(BaseModel):
    """One file of tensors; the attributes are those of the format."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    file: Annotated[str, Field(alias="dataPath", pattern=r"^[^/\\]+$")]
    format: Literal["raw-shard"]
    nbytes: PositiveInt
    md5sum: str | None = None
    records: tuple[TensorRecord, ...]


class CacheIndex(BaseModel):
    """The whole index; ``metadata`` is free."""

    model_config = ConfigDict(frozen=True)

    metadata: dict[str, Any] = Field(default_factory=dict)
    records: tuple[ShardRecord, ...]


def read_cache_index(folder: Path) -> CacheIndex:
    """Read and check an index; the shards are not looked at.

    Raises:
        CheckpointError: it is missing or contradicts itself; the message names the tensor.
    """
    path = folder / INDEX
    try:
        index = CacheIndex.model_validate_json(path.read_bytes())
    except OSError as error:
        raise _wrong(path, f"can't be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise _wrong(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    names: set[str] = set()
    files: set[str] = set()
    for shard in index.records:
        if shard.file in files or shard.file in {".", ".."}:
            raise _wrong(path, f"the file name {shard.file!r} is used twice or isn't one")
        files.add(shard.file)
        _check_shard(path, shard)
        for record in shard.records:
            if record.name in names:
                raise _wrong(path, f"there are two tensors {record.name}")
            names.add(record.name)
    return index


def _check_shard(path: Path, shard: ShardRecord) -> None:
    end = 0
    for record in sorted(shard.records, key=lambda record: record.offset):
        if record.format != "raw" and record.dtype == "float32":
            raise _wrong(
                path, f"{record.name} is float32 stored as bfloat16, which edgec can't read"
            )
        expected = math.prod(record.shape) * np.dtype(record.dtype).itemsize
        if record.nbytes != expected:
            shape = "x".join(map(str, record.shape))
            what = f"{record.name} has nbytes {record.nbytes}, but {shape} {record.dtype} is {expected}"
            raise _wrong(path, what)
        if record.offset < end:
            raise _wrong(path, f"{record.name} in {shard.file} overlaps the tensor before it")
        end = record.offset + record.nbytes
        if end > shard.nbytes:
            what = f"{record.name} ends at byte {end} of {shard.file}, which has {shard.nbytes}"
            raise _wrong(path, what)


def _wrong(path: Path, what: str) -> CheckpointError:
    return CheckpointError(what, where=str(path), remedy=REMEDY)
