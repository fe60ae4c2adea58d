"""Linear layers on GPUs: one row, few rows, tiles and matrix units, against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402
from tvm.s_tir import dlight  # noqa: E402

from edgec.passes.specialize_low_batch import FORMS, SpecializeLowBatch  # noqa: E402
from edgec.scheduling.kernels.gpu_linear import linear_kernel  # noqa: E402
from edgec.scheduling.kernels.linear import LINEAR, Linear  # noqa: E402
from edgec.scheduling.rules.gpu import default_rules, matmul_rule  # noqa: E402
from kernels.gpu_functions import IPHONE, JETSON, PHONE, call, gpu_target, source  # noqa: E402
from standin_tools import needs  # noqa: E402

pytestmark = [pytest.mark.slow, needs("clang"), needs("clang++")]

F16, F32 = "float16", "float32"
TARGETS = {
    "opencl": {**PHONE, "thread_warp_size": 1},
    "metal": {**IPHONE, "max_threads_per_block": 256, "thread_warp_size": 32},
    "cuda": {**JETSON, "thread_warp_size": 32},
}
# Sizes that no tile divides, and plain ones; four and eight bits.
LAYERS = [
    Linear(96, 256, F16, F16, "uint32", 4, 32, F16),
    Linear(70, 96, F16, F32, "uint32", 4, 32, F16),
    Linear(40, 64, F32, F32, "uint32", 8, 32, F32),
    Linear(130, 72, F16, F32, F16),
    Linear(33, 100, F32, F32, F32),
    # With zero points, whose words are full and not.
    Linear(128, 320, F16, F16, "uint32", 4, 32, F16, zeros=True),
    Linear(70, 192, F16, F32, "uint32", 8, 32, F16, zeros=True),
]
ROWS = [2, 8, 37]
CHECKED = {2, 37}


def scheduled(layer: Linear, kind: str, *, single: bool) -> Any:
    """A layer's kernel as the pipeline makes it."""
    target = gpu_target(TARGETS[kind])
    function = linear_kernel(layer, single=single)[1].with_attr(LINEAR, layer.to_json())
    mod = tvm.IRModule({"main": function})
    with target:
        mod = tvm.tirx.transform.ForceNarrowIndexToInt32()(mod)
        mod = SpecializeLowBatch(matmul_rule(target))(mod)
        mod = dlight.ApplyDefaultSchedule(*default_rules(target))(mod)
    return mod["main"]


def inputs(layer: Linear, rows: int) -> tuple[list[Any], Any, Any]:
    """Arguments without the result, and activations and weights in float64."""
    random = np.random.default_rng(rows)
    x = random.standard_normal((rows, layer.k)).astype(layer.x_dtype)
    if not layer.bits:
        w = random.standard_normal((layer.n, layer.k)).astype(layer.w_dtype)
        return [x, w], x.astype(np.float64), w.astype(np.float64)
    most = (1 << layer.bits) - 1
    groups = layer.n, layer.k // layer.group
    codes = random.integers(0, most + 1, (layer.n, layer.k))
    scales = random.uniform(0.01, 0.1, groups).astype(layer.scale_dtype)
    zeros = random.integers(0, most + 1, groups) if layer.zeros else np.full(groups, most // 2)
    centered = codes - np.repeat(zeros, layer.group, axis=1)
    weights = centered * np.repeat(scales.astype(np.float64), layer.group, axis=1)
    stored = [x, in_words(codes, layer.bits), scales]
    if layer.zeros:
        stored.append(in_words(zeros, layer.bits))
    return stored, x.astype(np.float64), weights


def in_words(numbers: Any, bits: int) -> Any:
    """``(n, count)`` unsigned numbers, neighbours in a word; what is left of the last word is noise."""
    per_word = 32 // bits
    rest = -numbers.shape[1] % per_word
    padded = np.pad(numbers, ((0, 0), (0, rest)), constant_values=(1 << bits) - 1)
    parts = padded.reshape(len(numbers), -1, per_word).astype(np.uint64)
    shifts = bits * np.arange(per_word, dtype=np.uint64)
    return np.bitwise_or.reduce(parts << shifts, axis=2).astype(np.uint32)


def tolerance(layer: Linear, wide_x: Any, wide_w: Any) -> float:
    """Weights rounded once to the type of the activations, sums in float32, one rounding of y."""
    unit = 2.0**-11 if F16 in (layer.x_dtype, layer.y_dtype) else 2.0**-22
    # Each product is off by at most two units of itself; their signs are random.
    return 4 * unit * float(np.abs(wide_x @ wide_w.T).max() + np.sqrt(layer.k))


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer.name}_{layer.x_dtype}")
@pytest.mark.parametrize("kind", TARGETS)
def test_few_and_many_rows(kind: str, layer: Linear) -> None:
    kernel = scheduled(layer, kind, single=False)
    for rows in ROWS:
        arguments, x, w = inputs(layer, rows)
        y = np.full((rows, layer.n), np.nan, layer.y_dtype)
        # Few rows and a tile that is cut short are the ones to go astray.
        got = call(kernel, TARGETS[kind], *arguments, y, checked=rows in CHECKED)[-1]
        np.testing.assert_allclose(got, x @ w.T, rtol=0, atol=tolerance(layer, x, w))


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer.name}_{layer.x_dtype}")
@pytest.mark.parametrize("kind", TARGETS)
def test_one_row(kind: str, layer: Linear) -> None:
    kernel = scheduled(layer, kind, single=True)
    arguments, x, w = inputs(layer, 1)
    y = np.full((1, layer.n), np.nan, layer.y_dtype)
    got = call(kernel, TARGETS[kind], *arguments, y, checked=True)[-1]
    np.testing.assert_allclose(got, x @ w.T, rtol=0, atol=tolerance(layer, x, w))


@pytest.mark.parametrize(
    ("kind", "spelled"), [("cuda", "wmma::mma_sync"), ("metal", "simdgroup_multiply_accumulate")]
)
def test_half_precision_is_multiplied_on_matrix_units(kind: str, spelled: str) -> None:
    half, full = LAYERS[0], LAYERS[4]
    assert spelled in source(scheduled(half, kind, single=False), TARGETS[kind])
    assert spelled not in source(scheduled(full, kind, single=False), TARGETS[kind])
    assert spelled not in source(scheduled(half, kind, single=True), TARGETS[kind])


def test_sums_are_float32_also_where_results_are_half() -> None:
    layer = Linear(8, 4096, F16, F16, F16)
    rows = 37
    x = np.ones((rows, layer.k), F16)
    w = np.full((layer.n, layer.k), 0.1, F16)
    exact = layer.k * float(np.float16(0.1))
    for kind in TARGETS:
        y = np.zeros((rows, layer.n), F16)
        got = call(scheduled(layer, kind, single=False), TARGETS[kind], x, w, y)[-1]
        # In half precision the sum would stop growing at 256.
        np.testing.assert_allclose(got, exact, rtol=2.0**-11)


def test_the_host_chooses_the_form_by_the_number_of_rows() -> None:
    text = source(scheduled(LAYERS[0], "opencl", single=False), TARGETS["opencl"])
    assert text.count("__kernel void f_kernel") >= len(FORMS) + 1
