"""The weight of the largest magnitude in each group of a block, with its sign."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from edgec.parallel import Workspace

# The bits of a float32.
_SIGN = np.int32(-(1 << 31))
_MAGNITUDE = ~_SIGN


def group_peaks(
    weight: npt.NDArray[np.float32], group_size: int, workspace: Workspace
) -> npt.NDArray[np.float32]:
    """The weight of the largest magnitude of every group, ``(n, K / group_size)``.

    Of two weights ``x`` and ``-x`` it is the positive one; a NaN in a group gives a NaN.

    The bits of floats, read as integers, are in the order of the magnitudes as long as the sign is
    the same, and a NaN is above infinity. Read as signed integers every positive number is above
    every negative one, read as unsigned integers it is below. So the two maxima are the largest
    number of either sign, in whatever order the weights come. (numpy's maximum of integers is also
    twice as fast as that of floats.)
    """
    bits = weight.reshape(-1)
    # A group of one sign has the same number in both.
    positive = _group_maxima(bits.view(np.int32), group_size, "positive peaks", workspace)
    negative = _group_maxima(bits.view(np.uint32), group_size, "negative peaks", workspace)
    # No selection by a mask: its branches would be mispredicted half of the time.
    magnitude = np.maximum(positive, negative.view(np.int32) & _MAGNITUDE)
    sign = (positive - magnitude) & _SIGN  # set where the positive one is the lesser or isn't there
    peaks: npt.NDArray[np.int32] = magnitude | sign
    return peaks.view(np.float32).reshape(weight.shape[0], -1)


def _group_maxima(
    numbers: npt.NDArray[Any], width: int, name: str, workspace: Workspace
) -> npt.NDArray[Any]:
    """The maximum of every ``width`` neighbours.

    Halving passes over neighbours are many times as fast as numpy's reduction over a short last
    axis, and run without the interpreter's lock.
    """
    while width % 2 == 0:
        # Each pass reads one of these buffers and writes the other.
        buffer, size = f"{name} {width.bit_length() % 2}", numbers.size // 2
        half = workspace.array(buffer, (size,), numbers.dtype)
        np.maximum(numbers[0::2], numbers[1::2], out=half)
        numbers, width = half, width // 2
    maxima = numbers[0::width]
    for place in range(1, width):
        maxima = np.maximum(maxima, numbers[place::width])
    return maxima
