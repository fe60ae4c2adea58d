"""``golden.safetensors``: the golden outputs as a file."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgec.checkpoints.safetensors_header import PREFIX, header_length, parse_header
from edgec.errors import CheckpointError, VerificationError
from edgec.files import canonical_json, write_atomic
from edgec.verification.golden import Golden

if TYPE_CHECKING:
    from pathlib import Path

NAME = "golden.safetensors"
SCHEMA = "edgec.golden/v1"
_REMEDY = "restore the file or build the artifact again"
_LARGEST = 64 << 20  # far above what is ever written, far below what would hurt
_ALIGNMENT = 8
_TYPES: dict[str, np.dtype[Any]] = {"I32": np.dtype("<i4"), "F32": np.dtype("<f4")}
_AXES = {"tokens": 1, "positions": 1, "artifact": 2, "reference": 2}


def write_golden(path: Path, golden: Golden) -> None:
    """Write a safetensors file; equal content gives equal bytes.

    The tensors are ``tokens``, ``positions``, ``artifact`` and, if it is there, ``reference``; the
    metadata has ``schema`` and ``tolerance``.
    """
    tensors = {
        "tokens": golden.tokens.astype(_TYPES["I32"]),
        "positions": golden.positions.astype(_TYPES["I32"]),
        "artifact": golden.artifact.astype(_TYPES["F32"]),
    }
    if golden.reference is not None:
        tensors["reference"] = golden.reference.astype(_TYPES["F32"])
    header: dict[str, Any] = {
        "__metadata__": {"schema": SCHEMA, "tolerance": repr(golden.tolerance)}
    }
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": "I32" if tensor.dtype.kind == "i" else "F32",
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = canonical_json(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    data = b"".join(tensor.tobytes() for tensor in tensors.values())
    write_atomic(path, len(text).to_bytes(PREFIX, "little") + text + data)


def read_golden(path: Path) -> Golden:
    """Read golden outputs.

    Raises:
        VerificationError: the file is missing, damaged or of another version.
    """
    raw = _read(path)
    where = str(path)
    try:
        length = header_length(raw[:PREFIX], len(raw), where)
        header = raw[PREFIX : PREFIX + length]
        entries = parse_header(header, len(raw), where)
    except CheckpointError as error:
        raise VerificationError(error.what, where=where, remedy=_REMEDY) from error
    metadata = json.loads(header).get("__metadata__", {})
    if metadata.get("schema") != SCHEMA:
        raise _damaged(path, f"its schema is {metadata.get('schema')!r}, not {SCHEMA}")
    tensors: dict[str, npt.NDArray[Any]] = {}
    for name, axes in _AXES.items():
        entry = entries.get(name)
        if entry is None and name == "reference":
            continue
        wanted = "I32" if axes == 1 else "F32"
        if entry is None or entry.dtype != wanted or len(entry.shape) != axes:
            raise _damaged(path, f"it has no tensor {name} of type {wanted} with {axes} axes")
        values = np.frombuffer(raw, _TYPES[wanted], math.prod(entry.shape), entry.begin)
        tensors[name] = values.reshape(entry.shape)
    golden = Golden(
        tensors["tokens"],
        tensors["positions"],
        tensors["artifact"],
        tensors.get("reference"),
        _tolerance(path, metadata.get("tolerance", "")),
    )
    _check(path, golden)
    return golden


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except OSError as error:
        what = f"can't be read: {error.strerror}"
        raise VerificationError(what, where=str(path), remedy=_REMEDY) from error
    if len(raw) > _LARGEST:
        raise _damaged(path, "it is too large for golden outputs")
    return raw


def _tolerance(path: Path, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise _damaged(path, f"its tolerance {text!r} is not a positive number")
    return value


def _check(path: Path, golden: Golden) -> None:
    kept = len(golden.positions)
    if not kept or np.any(np.diff(golden.positions) <= 0):
        raise _damaged(path, "its positions are not ascending")
    if golden.positions[0] < 0 or golden.positions[-1] >= len(golden.tokens):
        raise _damaged(path, "its positions are not those of its tokens")
    vocabulary = golden.artifact.shape[1]
    if not vocabulary or golden.tokens.min() < 0 or golden.tokens.max() >= vocabulary:
        raise _damaged(path, "its tokens are not in the vocabulary")
    for table in (golden.artifact, golden.reference):
        if table is not None and table.shape != (kept, vocabulary):
            raise _damaged(path, f"its logits have the shape {table.shape}")
        if table is not None and not np.isfinite(table).all():
            raise _damaged(path, "its logits are not finite numbers")


def _damaged(path: Path, what: str) -> VerificationError:
    return VerificationError(what, where=str(path), remedy=_REMEDY)
