"""The largest magnitude in each group of a block of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edgec.parallel import Workspace


def group_peaks(
    weight: npt.NDArray[np.float32], group_size: int, workspace: Workspace
) -> npt.NDArray[np.float32]:
    """``max |w|`` of every group, ``(n, K / group_size)``; a NaN in a group gives NaN.

    The maximum is taken in halving passes over neighbours: one pass over the whole block is many
    times as fast as numpy's reduction over a short last axis, and a maximum has no rounding that
    would depend on the order.
    """
    peaks = workspace.array("magnitude", (weight.size,), np.float32)
    np.abs(weight.reshape(-1), out=peaks)
    width = group_size
    while width % 2 == 0:
        # Each pass reads one of these buffers and writes the other.
        half = workspace.array(f"peaks {width.bit_length() % 2}", (peaks.size // 2,), np.float32)
        np.maximum(peaks[0::2], peaks[1::2], out=half)
        peaks, width = half, width // 2
    if width > 1:
        peaks = np.maximum.reduce(peaks.reshape(-1, width), axis=1)
    return peaks.reshape(weight.shape[0], -1)
