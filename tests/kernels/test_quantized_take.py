"""The lookup in a quantized table against the definition in numpy float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402
from tvm import te  # noqa: E402
from tvm.s_tir import dlight  # noqa: E402

from edgec.layouts.dot4 import pack  # noqa: E402
from edgec.passes.table_lookup import lookup  # noqa: E402
from edgec.quantization.tensors import QuantizedTensor  # noqa: E402
from edgec.scheduling.rules.cpu import CPUElementwise  # noqa: E402
from kernels.test_gpu_linear import in_words  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.slow

ROWS, COLUMNS, GROUP = 37, 96, 24


def run(
    ids: np.ndarray, parts: Sequence[Sequence[np.ndarray]], columns: int, dtype: str
) -> np.ndarray:
    """Rows of a table in parts, by a library whose lookups are scheduled as a CPU target's are."""
    target = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"})
    count = te.var("n", "int64")
    places = te.placeholder((count,), "int32", "ids")
    tables = [
        [te.placeholder(array.shape, str(array.dtype), "stored") for array in part]
        for part in parts
    ]
    rows = lookup(places, tables, columns, dtype)
    flat = [tensor for table in tables for tensor in table]
    function = te.create_prim_func([places, *flat, rows]).with_attr("global_symbol", "take")
    module = tvm.tirx.transform.BindTarget(target)(tvm.IRModule({"take": function}))
    with target:
        module = dlight.ApplyDefaultSchedule(CPUElementwise(256))(module)
    take = tvm.runtime.Executable(tvm.tirx.build(module, target))["take"]
    out = tvm.runtime.tensor(np.full((len(ids), columns), np.nan, dtype))
    arrays = [array for part in parts for array in part]
    take(*(tvm.runtime.tensor(np.ascontiguousarray(array)) for array in (ids, *arrays)), out)
    found: np.ndarray = out.numpy()
    return found


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


@pytest.mark.parametrize("parts", [(37,), (16, 21), (16, 16, 5)])
@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("bits", [4, 8])
def test_rows_of_tiles_equal_float64(
    bits: int, dtype: str, points: bool, parts: tuple[int, ...]
) -> None:
    random = np.random.default_rng(bits)
    end, group, columns = 1 << (bits - 1), 32, 96
    codes = random.integers(-end, end, (ROWS, columns)).astype(np.int8)
    scales = random.uniform(-1.5, 1.5, (ROWS, columns // group)).astype(dtype)
    zeros = random.integers(-end, end, scales.shape).astype(np.int8)
    wide = np.repeat(scales.astype(np.float64), group, axis=1)
    centre = np.repeat(zeros, group, axis=1).astype(np.float64) if points else 0
    table = (codes.astype(np.float64) - centre) * wide
    stored, first = [], 0
    for rows in parts:
        part = slice(first, first + rows)
        tensor = QuantizedTensor(codes[part], scales[part], bits, zeros[part] if points else None)
        stored.append(list(pack(tensor).values()))
        first += rows
    ids = np.array([0, 1, 2, ROWS - 1, 15, 16, 17, 31, 32, 33, 5, 5], np.int32)
    found = run(ids, stored, columns, dtype)
    # A product is rounded once, to the type of the result: as numpy's cast does it.
    np.testing.assert_array_equal(found, table[ids].astype(dtype))
