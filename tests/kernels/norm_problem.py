"""What norms have to give, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

EPSILON = 1e-5
Array = npt.NDArray[Any]


def exact(x: Array, weight: Array, *bias: Array) -> Array:
    """An RMS norm, or with a bias a layer norm, in float64."""
    wide = x.astype(np.float64)
    if bias:
        wide = wide - wide.mean(-1, keepdims=True)
    scale = 1 / np.sqrt((wide**2).mean(-1, keepdims=True) + EPSILON)
    return sum((item.astype(np.float64) for item in bias), wide * scale * weight.astype(np.float64))
