"""Numbers for reports and messages."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import numpy as np

from edgec.errors import VerificationError

if TYPE_CHECKING:
    from edgec.verification.interfaces import Logits

# Rows are handled in blocks of about this many elements, so that a large vocabulary costs
# megabytes of scratch memory and not gigabytes.
BLOCK = 1 << 19
_LARGEST = math.log(sys.float_info.max)


def rounded(value: float) -> float:
    """``value`` to 6 significant digits: what is beyond them is noise, and reports are compared."""
    return float(f"{value:.6g}")


def bounded_exp(value: float) -> float:
    """``e ** value``, at most the largest float: a report has no infinities."""
    return math.exp(min(value, _LARGEST))


def require_finite(logits: Logits, whose: str) -> None:
    """Refuse a NaN or an infinity, which would slip through every comparison with a limit.

    Raises:
        VerificationError: there is one.
    """
    # Minimum and maximum hand on a NaN, and need no array of truth values.
    if not (np.isfinite(np.min(logits)) and np.isfinite(np.max(logits))):
        raise VerificationError(
            f"{whose} gives logits that are not finite numbers",
            remedy="choose a scheme with float32 activations if the model overflows float16",
        )


def largest_difference(got: Logits, expected: Logits, whose: str) -> float:
    """``max |got - expected|`` of arrays of one shape.

    Raises:
        VerificationError: ``got`` has another shape, a NaN or an infinity.
    """
    if got.shape != expected.shape:
        raise VerificationError(
            f"{whose} gives logits of shape {got.shape} in place of {expected.shape}",
            remedy="compare only what belongs to the same model",
        )
    require_finite(got, whose)
    return float(np.max(np.abs(got - expected)))
