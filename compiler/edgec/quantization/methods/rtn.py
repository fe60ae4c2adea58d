"""Round to nearest: symmetric codes, one scale per group, no calibration data.

    scale = max|w| / largest code, rounded to the type it is stored in
    code  = w / scale, rounded to the nearest integer, ties to even, clipped to the code's range

The codes are taken from the *stored* scale, so that its rounding is not a further error. Both
quotients are IEEE float32 divisions, correctly rounded, so the result is the same on every
machine. A group of zeros gets scale 0 and codes 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgec.parallel import Workspace
from edgec.quantization.badrows import FLOAT16_OVERFLOW, BadRowError, check_finite, first_row
from edgec.quantization.peaks import group_peaks
from edgec.quantization.tensors import QuantizedTensor

if TYPE_CHECKING:
    from edgec.quantization.schemes import TensorScheme


def quantize(
    weight: npt.NDArray[np.float32],
    scheme: TensorScheme,
    workspace: Workspace | None = None,
) -> QuantizedTensor:
    """Quantize some rows; see :class:`edgec.quantization.methods.Quantize`.

    Args:
        weight: ``(n, K)``, C-contiguous; it is not changed.
        scheme: how to store it; K is a multiple of the group size.
        workspace: scratch memory; the result lies in it until the next call.

    Returns:
        Codes of [-7, 7] or [-127, 127] without zero points.

    Raises:
        BadRowError: a row has a NaN or an infinity, or needs a scale beyond float16.
    """
    workspace = workspace or Workspace()
    rows, columns = weight.shape
    groups = columns // scheme.group_size
    peaks = group_peaks(weight, scheme.group_size, workspace)
    check_finite(peaks)
    scales, divisors = _scales(peaks, scheme, workspace)

    quotients = workspace.array("magnitude", (rows, groups, scheme.group_size), np.float32)
    np.divide(weight.reshape(quotients.shape), divisors[..., None], out=quotients)
    np.rint(quotients, out=quotients)
    # Only scales so small that float16 rounds them coarsely can put a code out of range.
    largest = scheme.largest_code
    if np.max(np.divide(peaks, divisors, out=peaks)) >= largest + 0.5:
        np.clip(quotients, -largest, largest, out=quotients)
    codes = workspace.array("codes", (rows, columns), np.int8)
    np.copyto(codes, quotients.reshape(rows, columns), casting="unsafe")
    return QuantizedTensor(codes, scales, scheme.bits)


def _scales(
    peaks: npt.NDArray[np.float32], scheme: TensorScheme, workspace: Workspace
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """The scales as stored, and as float32 divisors, in which 0 is infinity: ``w / inf = 0``."""
    divisors = workspace.array("divisors", peaks.shape, np.float32)
    np.divide(peaks, np.float32(scheme.largest_code), out=divisors)
    if scheme.scale_dtype == "float16" and np.max(divisors) >= FLOAT16_OVERFLOW:
        row = first_row(divisors >= FLOAT16_OVERFLOW)
        raise BadRowError(
            row,
            f"has a weight of magnitude {np.max(peaks[row]):.4g}, whose scale overflows float16",
            f"choose the scheme q{scheme.bits}f32_1",
        )
    scales = workspace.array("scales", peaks.shape, scheme.scale_dtype)
    np.copyto(scales, divisors, casting="same_kind")
    np.copyto(divisors, scales)
    np.copyto(divisors, np.inf, where=divisors == 0)
    return scales, divisors
