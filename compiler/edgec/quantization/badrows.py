"""Rows of weights that can't be stored: how they are found and reported."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FLOAT16_OVERFLOW = 65520.0  # the smallest number that rounds to infinity in float16


class BadRowError(Exception):
    """A row of weights that can't be stored; the caller knows which tensor it belongs to.

    Args:
        row: index within the block of rows.
        what: what is wrong with it, as a clause such as ``"has a NaN"``.
        remedy: what the user can do.
    """

    def __init__(self, row: int, what: str, remedy: str) -> None:
        super().__init__(f"row {row} {what}; {remedy}")
        self.row = row
        self.what = what
        self.remedy = remedy


def check_finite(peaks: npt.NDArray[np.float32]) -> None:
    """Check that no row has a NaN or an infinity.

    Args:
        peaks: ``(n, any)`` largest magnitudes of each row's parts.

    Raises:
        BadRowError: for the first row that has one.
    """
    # A maximum hands on a NaN, so this one number answers for the whole block.
    if np.isfinite(np.max(peaks)):
        return
    row = first_row(~np.isfinite(peaks))
    what = "has a NaN" if np.isnan(peaks[row]).any() else "has an infinite weight"
    raise BadRowError(row, what, "download the checkpoint again or use another revision")


def first_row(wrong: npt.NDArray[Any]) -> int:
    """The index of the first row of a ``(n, any)`` mask with a true element."""
    return int(np.argmax(wrong.any(axis=1)))
