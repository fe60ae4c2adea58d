"""Tensors that are not quantized: a cast to the model's float type, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.quantization.badrows import FLOAT16_OVERFLOW, BadRowError, check_finite, first_row

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgec.parallel import Workspace
    from edgec.quantization.schemes import FloatType


def cast(
    values: npt.NDArray[np.float32], dtype: FloatType, workspace: Workspace
) -> npt.NDArray[Any]:
    """Round float32 values of any shape to ``dtype``, to nearest even.

    Returns:
        An array of the same shape in the workspace, or ``values`` itself for float32.

    Raises:
        BadRowError: a row (an element of a 1-D tensor) has a NaN or an infinity, or overflows.
    """
    rows = values.reshape(values.shape[0], -1)
    magnitudes = workspace.array("magnitude", rows.shape, np.float32)
    np.abs(rows, out=magnitudes)
    check_finite(magnitudes)
    if dtype == "float32":
        return values
    if np.max(magnitudes) >= FLOAT16_OVERFLOW:
        row = first_row(magnitudes >= FLOAT16_OVERFLOW)
        raise BadRowError(
            row,
            f"has a weight of magnitude {np.max(magnitudes[row]):.4g}, which overflows float16",
            "choose a scheme with float32, such as q4f32_1 or q0f32",
        )
    rounded = workspace.array("plain", values.shape, dtype)
    np.copyto(rounded, values, casting="same_kind")
    return rounded
