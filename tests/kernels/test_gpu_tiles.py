"""Linear layers by hand, for browsers: one row and tiles, against float64, memory and barriers checked."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

from edgec.scheduling.kernels.gpu_tiles import linear_kernel  # noqa: E402
from edgec.scheduling.kernels.linear import Linear  # noqa: E402
from kernels.gpu_functions import PHONE, call  # noqa: E402
from kernels.test_gpu_linear import F16, F32, LAYERS, inputs, tolerance  # noqa: E402
from standin_tools import needs  # noqa: E402

pytestmark = [pytest.mark.slow, needs("clang"), needs("clang++")]

# Whole tiles, too; and more columns of the weights than lanes take at once.
MORE = [
    Linear(512, 64, F16, F16, "uint32", 4, 32, F16),
    Linear(20, 1088, F32, F32, "uint32", 4, 64, F32),
]


@pytest.mark.parametrize("layer", LAYERS + MORE, ids=lambda layer: f"{layer.name}_{layer.x_dtype}")
@pytest.mark.parametrize("rows", [1, 2, 37])
def test_linear_layers_are_right(layer: Linear, rows: int) -> None:
    arguments, wide_x, wide_w = inputs(layer, rows)
    y = np.full((rows, layer.n), np.nan, layer.y_dtype)
    function = linear_kernel(layer, single=rows == 1).function
    found = call(function, PHONE, *arguments, y, checked=True)[-1]
    assert isinstance(found, np.ndarray)
    error = float(np.abs(found - wide_x @ wide_w.T).max())
    assert error <= tolerance(layer, wide_x, wide_w)
