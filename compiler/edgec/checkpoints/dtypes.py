"""The number formats of safetensors, and the way from the float ones to float32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Size of one element in bits, for every dtype of the format. Those that edgec can't use are here
# too, so that a file which holds a few of them can still be read for the rest.
BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F8_E4M3": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "U8": 8,
    "I8": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
    "C64": 64,
}

# The format is little-endian; bfloat16 is unknown to numpy and is read as its bits.
_STORED: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}

FLOATS = tuple(_STORED)


def to_float32(raw: bytes, dtype: str, out: NDArray[np.float32]) -> None:
    """Convert little-endian elements to float32.

    Exact for F32, F16 and BF16. F64 is rounded to nearest even; beyond float32's range it becomes
    an infinity, which the quantizer refuses.

    Args:
        raw: the elements as stored, ``out.size`` of them.
        dtype: one of ``FLOATS``.
        out: 1-D float32.
    """
    stored = np.frombuffer(raw, _STORED[dtype])
    if dtype == "BF16":
        # A bfloat16 is the upper half of the float32 with the same value.
        bits = out.view(np.uint32)
        bits[:] = stored
        np.left_shift(bits, 16, out=bits)
        return
    with np.errstate(over="ignore", invalid="ignore"):
        out[:] = stored
