"""The weight of the largest magnitude in each group of a block, with its sign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edgec.parallel import Workspace

_MAGNITUDE = 0x7FFFFFFF  # all bits of a float32 but its sign


def group_peaks(
    weight: npt.NDArray[np.float32], group_size: int, workspace: Workspace
) -> npt.NDArray[np.float32]:
    """The weight of the largest magnitude of every group, ``(n, K / group_size)``.

    Of two weights ``x`` and ``-x`` it is the positive one; a NaN in a group gives a NaN.

    The bits of floats, read as integers, are in the order of the magnitudes as long as the sign is
    the same, and a NaN is above infinity. Read as signed integers every positive number is above
    every negative one, read as unsigned integers it is below. So the two maxima are the largest
    number of either sign, and the larger of these two is the answer, whatever the order of the
    weights. (numpy's maximum of integers is also twice as fast as that of floats.)
    """
    bits = weight.reshape(-1)
    positive = _group_maxima(bits.view(np.int32), group_size, "positive peaks", workspace)
    negative = _group_maxima(bits.view(np.uint32), group_size, "negative peaks", workspace)
    # Where a group has one sign only, both are the same number.
    peaks = positive.view(np.uint32)
    np.copyto(peaks, negative, where=(negative & _MAGNITUDE) > (peaks & _MAGNITUDE))
    return peaks.view(np.float32).reshape(weight.shape[0], -1)


def _group_maxima(
    numbers: npt.NDArray[Any], width: int, name: str, workspace: Workspace
) -> npt.NDArray[Any]:
    """The maximum of every ``width`` neighbours, in the workspace.

    Halving passes over neighbours are many times as fast as numpy's reduction over a short last
    axis, and run without the interpreter's lock.
    """
    dtype = numbers.dtype
    while width % 2 == 0:
        # Each pass reads one of these buffers and writes the other.
        half = workspace.array(f"{name} {width.bit_length() % 2}", (numbers.size // 2,), dtype)
        np.maximum(numbers[0::2], numbers[1::2], out=half)
        numbers, width = half, width // 2
    maxima = workspace.array(name, (numbers.size // width,), dtype)
    np.copyto(maxima, numbers[0::width])
    for place in range(1, width):
        np.maximum(maxima, numbers[place::width], out=maxima)
    return maxima
