"""The quantized checkpoint on disk: which bytes lie where.

A folder with two files. ``quantized.json`` says how each parameter is stored.
``quantized.safetensors`` is a valid safetensors file with, for a quantized parameter ``p``,

* ``p#codes``: ``(N, K)`` int8, or ``(N, K / 2)`` uint8 with two 4-bit codes per byte, the low
  nibble first, two's complement;
* ``p#scales``: ``(N, K / group size)`` float16 or float32;
* ``p#zeros``: ``(N, K / group size)`` int8, if it has zero points;

and for a plain parameter the tensor ``p``. Every offset follows from ``quantized.json``, so the
writer knows the header before it has seen a weight, and the reader needs none of it.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgec.errors import CheckpointError
from edgec.quantization.schemes import FloatType, TensorScheme

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

INDEX = "quantized.json"
DATA = "quantized.safetensors"
SCHEMA = "edgec.quantized-checkpoint/v1"
REMEDY = "run the quantize stage again"

_SAFETENSORS_TYPES = {"float32": "F32", "float16": "F16", "int8": "I8", "uint8": "U8"}
_ALIGNMENT = 8


class StoredTensor(BaseModel):
    """How one parameter is stored.

    Attributes:
        name: of the parameter.
        shape: of the parameter, before it was quantized.
        dtype: of the plain values, or of the scales.
        bits: width of a code, 4 or 8; None for a plain tensor.
        group_size: None for a plain tensor.
        method: that made the codes, ``"checkpoint"`` if they were taken over; None for a plain tensor.
        zeros: whether there are zero points.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    shape: tuple[int, ...] = Field(min_length=1)
    dtype: FloatType
    bits: Literal[4, 8] | None = None
    group_size: int | None = None
    method: str | None = None
    zeros: bool = False

    @property
    def scheme(self) -> TensorScheme | None:
        """As the tensor's scheme; None when it is plain."""
        if self.bits is None or self.group_size is None:
            return None
        return TensorScheme(self.bits, self.group_size, self.dtype, self.zeros)


class StoreIndex(BaseModel):
    """The content of ``quantized.json``; ``dtype`` is the model's float type."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_: Literal["edgec.quantized-checkpoint/v1"] = Field(
        default="edgec.quantized-checkpoint/v1", alias="schema"
    )
    dtype: FloatType
    tensors: tuple[StoredTensor, ...]


class Segment(BaseModel):
    """One array in the data file.

    Attributes:
        name: in the safetensors header.
        shape: of the stored array; axis 0 is that of the parameter.
        dtype: numpy's name of the stored type.
        offset: of its first byte from the start of the data section.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of axis 0."""
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return self.shape[0] * self.row_bytes


def segments(index: StoreIndex) -> dict[str, Segment]:
    """Every array of the data file by name, in the order of their offsets.

    The wide types come first, so that each array is aligned to its type.
    """
    arrays = [array for tensor in index.tensors for array in _arrays(tensor)]
    arrays.sort(key=lambda array: -np.dtype(array[2]).itemsize)
    placed: dict[str, Segment] = {}
    offset = 0
    for name, shape, dtype in arrays:
        segment = Segment(name=name, shape=shape, dtype=dtype, offset=offset)
        placed[name] = segment
        offset += segment.nbytes
    return placed


def header(placed: Mapping[str, Segment]) -> bytes:
    """The start of the safetensors file: the length, the JSON, spaces up to an 8-byte border."""
    entries: dict[str, object] = {"__metadata__": {"format": SCHEMA}}
    for segment in placed.values():
        entries[segment.name] = {
            "dtype": _SAFETENSORS_TYPES[segment.dtype],
            "shape": list(segment.shape),
            "data_offsets": [segment.offset, segment.offset + segment.nbytes],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def read_index(folder: Path) -> StoreIndex:
    """Read ``quantized.json``.

    Raises:
        CheckpointError: it is missing or not what this version writes.
    """
    path = folder / INDEX
    try:
        return StoreIndex.model_validate_json(path.read_bytes())
    except OSError as error:
        what = f"can't be read: {error.strerror}"
        raise CheckpointError(what, where=str(path), remedy=REMEDY) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        what = f"is not a quantized checkpoint's index: {field}: {first['msg']}"
        raise CheckpointError(what, where=str(path), remedy=REMEDY) from error


def _arrays(tensor: StoredTensor) -> list[tuple[str, tuple[int, ...], str]]:
    scheme = tensor.scheme
    if scheme is None:
        return [(tensor.name, tensor.shape, tensor.dtype)]
    rows, columns = tensor.shape
    groups = columns // scheme.group_size
    code_bytes, code_type = (columns // 2, "uint8") if scheme.bits == 4 else (columns, "int8")
    arrays: list[tuple[str, tuple[int, ...], str]] = [
        (f"{tensor.name}#codes", (rows, code_bytes), code_type),
        (f"{tensor.name}#scales", (rows, groups), scheme.scale_dtype),
    ]
    if tensor.zeros:
        arrays.append((f"{tensor.name}#zeros", (rows, groups), "int8"))
    return arrays
