"""The lookup in a table that is stored in parts against the definition in numpy float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402
from tvm import relax, te  # noqa: E402

from edgec.ir.params import NAME, extern_call  # noqa: E402
from edgec.models.blocks import QUANTIZED_MATMUL  # noqa: E402
from edgec.passes.split_tables import SplitTables  # noqa: E402
from edgec.passes.table_lookup import lookup  # noqa: E402
from kernels.test_gpu_linear import in_words  # noqa: E402

pytestmark = pytest.mark.slow

COLUMNS, GROUP = 96, 24
PARTS = [(37,), (16, 21), (8, 8, 8, 3)]
GAP = 5  # rows after each part that are none of the table's


def _library(rows: tuple[int, ...], bits: int, dtype: str, *, points: bool) -> Any:
    count = te.var("n", "int64")
    ids = te.placeholder((count,), "int32", "ids")
    parts = []
    for index, n in enumerate(rows):
        if bits == 0:
            parts.append([te.placeholder((n, COLUMNS), dtype, f"table{index}")])
            continue
        words = te.placeholder((n, COLUMNS * bits // 32), "uint32", f"words{index}")
        parts.append([words, te.placeholder((n, COLUMNS // GROUP), dtype, f"scales{index}")])
        if points:
            parts[-1].append(te.placeholder((n, 1), "uint32", f"zeros{index}"))
    out = lookup(ids, parts, COLUMNS, dtype)
    function = te.create_prim_func([ids, *(tensor for part in parts for tensor in part), out])
    module = tvm.IRModule({"take": function.with_attr("global_symbol", "take")})
    return tvm.runtime.Executable(tvm.tirx.build(module, tvm.target.Target("llvm")))["take"]


def _tensor(rows: np.ndarray) -> Any:
    """A tensor behind whose end other numbers lie."""
    poison = np.full((GAP, *rows.shape[1:]), 77, rows.dtype)
    padded = tvm.runtime.tensor(np.concatenate([rows, poison]))
    return padded._create_view(rows.shape)


@pytest.mark.parametrize("rows", PARTS)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(
    ("bits", "points"), [(0, False), (4, False), (8, False), (4, True), (8, True)]
)
def test_rows_equal_float64(bits: int, points: bool, dtype: str, rows: tuple[int, ...]) -> None:
    random = np.random.default_rng(bits)
    total = sum(rows)
    ends = np.cumsum(rows)[:-1]
    if bits == 0:
        table = random.standard_normal((total, COLUMNS)).astype(dtype)
        arrays = [[part] for part in np.split(table, ends)]
    else:
        codes = random.integers(0, 1 << bits, (total, COLUMNS)).astype(np.uint32)
        scales = random.uniform(-1.5, 1.5, (total, COLUMNS // GROUP)).astype(dtype)
        zeros = np.full(scales.shape, (1 << (bits - 1)) - 1)
        if points:
            zeros = random.integers(0, 1 << bits, scales.shape)
        wide = np.repeat(scales.astype(np.float64), GROUP, axis=1)
        table = (codes.astype(np.float64) - np.repeat(zeros, GROUP, axis=1)) * wide
        stored = [in_words(codes, bits), scales, *([in_words(zeros, bits)] if points else [])]
        arrays = list(zip(*(np.split(item, ends) for item in stored), strict=True))
    borders = [int(end) + step for end in ends for step in (-1, 0, 1)]
    ids = np.array([0, total - 1, *borders, 5, 5, 1], np.int32)

    out = tvm.runtime.tensor(np.full((len(ids), COLUMNS), np.nan, dtype))
    tensors = [_tensor(np.ascontiguousarray(array)) for part in arrays for array in part]
    _library(rows, bits, dtype, points=points)(tvm.runtime.tensor(ids), *tensors, out)
    # A product is rounded once, to the type of the result: as numpy's cast does it.
    np.testing.assert_array_equal(out.numpy(), table[ids].astype(dtype))


def test_a_head_of_tiles_in_parts() -> None:
    """37 rows in tiles of 16: parts of 16 and of 21 rows, which two tiles hold."""
    weights = relax.Var(
        NAME,
        relax.TupleType([relax.TensorType((37, 64), "int4"), relax.TensorType((37, 2), "float16")]),
    )
    x = relax.Var("x", relax.TensorType((3, 64), "float16"))
    builder = relax.BlockBuilder()
    with builder.function("f", [x, weights]):
        table = [builder.emit(relax.TupleGetItem(weights, index)) for index in range(2)]
        out = relax.TensorType((3, 37), "float32")
        y = builder.emit(relax.call_dps_packed(QUANTIZED_MATMUL, [x, *table], out_ty=out))
        builder.emit_func_output(y)
    parts = {
        0: [((1, 8, 16), "uint32"), ((2, 8, 16), "uint32")],
        1: [((1, 2, 16), "float16"), ((2, 2, 16), "float16")],
    }
    function = SplitTables(parts)(builder.get())["f"]
    found = []

    def visit(expr: Any) -> None:
        if extern_call(expr) is not None:
            found.append([int(size) for size in expr.ty_args[0].shape.values])

    relax.analysis.post_order_visit(function.body, visit)
    assert found == [[3, 16], [3, 21]]
    assert [int(size) for size in function.ret_ty.shape.values] == [3, 37]
