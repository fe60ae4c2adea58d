"""Write a safetensors file tensor by tensor, with one of them in memory at a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.checkpoints.safetensors_header import PREFIX
from edgec.files import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import numpy.typing as npt

_ALIGNMENT = 8
_NAMES = {
    "float32": "F32",
    "float16": "F16",
    "int32": "I32",
    "int64": "I64",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}


def write_safetensors(
    path: Path,
    types: Mapping[str, tuple[tuple[int, ...], str]],
    arrays: Iterable[tuple[str, npt.NDArray[Any]]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a file; equal content gives equal bytes.

    Args:
        path: the file; one that is there is replaced.
        types: shape and numpy dtype of each tensor, in their order.
        arrays: name and values of each, in the same order.
        metadata: texts that the header carries.

    Raises:
        OSError: the file can't be written.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, (shape, dtype) in types.items():
        size = math.prod(shape) * np.dtype(dtype).itemsize
        header[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = canonical_json(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    expected = iter(types.items())
    with path.open("wb") as file:
        file.write(len(text).to_bytes(PREFIX, "little") + text)
        for name, array in arrays:
            wanted, (shape, dtype) = next(expected)
            assert name == wanted, f"{name} comes in the place of {wanted}"
            assert array.shape == shape, f"{name} has the shape {array.shape}, not {shape}"
            little = np.dtype(dtype).newbyteorder("<")
            file.write(np.ascontiguousarray(array, little).data)
    assert next(expected, None) is None, "a tensor is missing"
