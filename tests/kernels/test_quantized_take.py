"""The lookup in a quantized table against the definition in numpy float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402
from tvm import te  # noqa: E402

from edgec.passes.table_lookup import lookup  # noqa: E402
from kernels.test_gpu_linear import in_words  # noqa: E402

pytestmark = pytest.mark.slow

ROWS, COLUMNS, GROUP = 37, 96, 24


def _library(bits: int, dtype: str, *, points: bool) -> Any:
    count = te.var("n", "int64")
    ids = te.placeholder((count,), "int32", "ids")
    words = te.placeholder((ROWS, COLUMNS * bits // 32), "uint32", "words")
    scales = te.placeholder((ROWS, COLUMNS // GROUP), dtype, "scales")
    table = [words, scales]
    if points:
        table.append(te.placeholder((ROWS, 1), "uint32", "zeros"))
    rows = lookup(ids, [table], COLUMNS, dtype)
    function = te.create_prim_func([ids, *table, rows])
    module = tvm.IRModule({"take": function.with_attr("global_symbol", "take")})
    return tvm.runtime.Executable(tvm.tirx.build(module, tvm.target.Target("llvm")))["take"]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("points", [False, True])
def test_rows_equal_float64(bits: int, dtype: str, points: bool) -> None:
    random = np.random.default_rng(bits)
    codes = random.integers(0, 1 << bits, (ROWS, COLUMNS)).astype(np.uint32)
    codes[0] = np.arange(COLUMNS) % (1 << bits)
    codes[1] = (1 << bits) - 1 - codes[0]
    scales = random.uniform(0.5, 1.5, (ROWS, COLUMNS // GROUP)).astype(dtype)
    scales *= random.choice(np.array([-1, 1], dtype), scales.shape)
    scales[2] = 0
    arguments = [in_words(codes, bits), scales]
    zeros = np.full(scales.shape, (1 << (bits - 1)) - 1)
    if points:
        zeros = random.integers(0, 1 << bits, scales.shape)
        arguments.append(in_words(zeros, bits))
    ids = np.array([0, 1, 2, ROWS - 1, 5, 5, 1], np.int32)
    table = (codes.astype(np.float64) - np.repeat(zeros, GROUP, axis=1)) * np.repeat(
        scales.astype(np.float64), GROUP, axis=1
    )

    out = tvm.runtime.tensor(np.full((len(ids), COLUMNS), np.nan, dtype))
    take = _library(bits, dtype, points=points)
    take(*(tvm.runtime.tensor(array) for array in (ids, *arguments)), out)
    # A product is rounded once, to the type of the result: as numpy's cast does it.
    np.testing.assert_array_equal(out.numpy(), table[ids].astype(dtype))
