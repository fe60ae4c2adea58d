"""Round to nearest: one signed scale per group, no zero points, no calibration data.

    peak  = the weight of the largest magnitude in the group
    scale = peak / -8 (int4) or peak / -128 (int8), rounded to the type it is stored in
    code  = w / scale, rounded to the nearest integer, ties to even, clipped to [-8, 7] or
            [-128, 127]

Two's complement has one more code below zero than above. The sign of the scale puts the peak
there, so that all 16 (256) codes are in use; GGUF's Q4_0 does the same.

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
        Codes of [-8, 7] or [-128, 127] and scales of either sign, without zero points.

    Raises:
        BadRowError: a row has a NaN or an infinity, or needs a scale beyond float16.
    """
    workspace = workspace or Workspace()
    rows, columns = weight.shape
    groups = columns // scheme.group_size
    peaks = group_peaks(weight, scheme.group_size, workspace)
    scales, divisors = _scales(peaks, scheme, workspace)

    quotients = workspace.array("quotients", (rows, groups, scheme.group_size), np.float32)
    np.divide(weight.reshape(quotients.shape), divisors[..., None], out=quotients)
    np.rint(quotients, out=quotients)
    # A weight near -peak gets the code above the largest one, or a few above where float16 rounds
    # a tiny scale coarsely: at most 12, or 192 of int8, which has to be clipped before the cast.
    # Bytes are clipped several times as fast as floats.
    lowest, largest = scheme.lowest_code, scheme.largest_code
    codes = workspace.array("codes", (rows, columns), np.int8)
    if scheme.bits == 8:
        np.clip(quotients, lowest, largest, out=quotients)
    np.copyto(codes, quotients.reshape(rows, columns), casting="unsafe")
    if scheme.bits < 8:
        np.clip(codes, lowest, largest, out=codes)
    return QuantizedTensor(codes, scales, scheme.bits)


def _scales(
    peaks: npt.NDArray[np.float32], scheme: TensorScheme, workspace: Workspace
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """The scales as stored, and as float32 divisors, in which 0 is infinity: ``w / inf = 0``."""
    magnitudes = workspace.array("magnitude", peaks.shape, np.float32)
    np.abs(peaks, out=magnitudes)
    check_finite(magnitudes)
    # Dividing by a power of two is exact, so the limit can be moved to the other side.
    overflow = -scheme.lowest_code * FLOAT16_OVERFLOW
    if scheme.scale_dtype == "float16" and np.max(magnitudes) >= overflow:
        row = first_row(magnitudes >= overflow)
        raise BadRowError(
            row,
            f"has a weight of magnitude {np.max(magnitudes[row]):.4g}, whose scale overflows float16",
            f"choose the scheme q{scheme.bits}f32_1",
        )
    divisors = workspace.array("divisors", peaks.shape, np.float32)
    np.divide(peaks, scheme.lowest_code, out=divisors)
    scales = workspace.array("scales", peaks.shape, scheme.scale_dtype)
    np.copyto(scales, divisors, casting="same_kind")
    np.copyto(divisors, scales)
    zero = divisors == 0
    np.copyto(scales, 0, where=zero)  # it may have been -0
    np.copyto(divisors, np.inf, where=zero)
    return scales, divisors
