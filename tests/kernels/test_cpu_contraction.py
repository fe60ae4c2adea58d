"""Register tiles on CPUs: right results, and nothing written beyond them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.s_tir import dlight

from edgec.passes import pipeline
from edgec.scheduling.rules.cpu import CPUElementwise
from edgec.scheduling.rules.cpu_contraction import CPUContraction

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

BITS = 256
GUARD = 1 << 14
MARK = 7.5


def _product(x: Any, y: Any) -> Any:
    return relax.op.multiply(relax.op.matmul(x, y), relax.const(0.5, "float32"))


def _convolution(x: Any, w: Any) -> Any:
    options = {"strides": 2, "padding": 1, "data_layout": "NHWC", "kernel_layout": "HWIO"}
    return relax.op.nn.relu(relax.op.nn.conv2d(x, w, **options))


def _pool(x: Any) -> Any:
    return relax.op.nn.max_pool2d(x, (3, 3), 2, 1, layout="NHWC")


def _mean(x: Any) -> Any:
    return relax.op.mean(x, [1, 2])


def _numpy_convolution(x: Any, w: Any) -> Any:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
    return np.maximum(np.einsum("nhwcij,ijco->nhwo", windows, w), 0)


def _numpy_pool(x: Any) -> Any:
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return windows[:, ::2, ::2].max((-1, -2))


CASES: dict[str, Any] = {
    "scores": (_product, [("b", "n", 20), ("b", 20, "n")], lambda x, y: 0.5 * (x @ y)),
    "values": (_product, [("b", "n", "n"), ("b", "n", 24)], lambda x, y: 0.5 * (x @ y)),
    "uneven": (_product, [("b", 17, 9), ("b", 9, 17)], lambda x, y: 0.5 * (x @ y)),
    "convolution": (_convolution, [("b", 14, 14, 5), (3, 3, 5, 48)], _numpy_convolution),
    "odd channels": (_convolution, [("b", 9, 10, 4), (3, 3, 4, 7)], _numpy_convolution),
    "pool": (_pool, [("b", 14, 14, 24)], _numpy_pool),
    "mean": (_mean, [("b", 7, 7, 40)], lambda x: x.mean((1, 2))),
}


def _kernel(compute: Callable[..., Any], shapes: list[tuple[Any, ...]]) -> Any:
    sizes = {name: tirx.Var(name, "int64") for name in ("b", "n")}
    arguments = [
        relax.Var(f"x{i}", relax.TensorType([sizes.get(s, s) for s in shape], "float32"))
        for i, shape in enumerate(shapes)
    ]
    builder = relax.BlockBuilder()
    with builder.function("main", arguments):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(compute(*arguments)))
        builder.emit_func_output(result)
    target = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64-v3"})
    rules = dlight.ApplyDefaultSchedule(CPUContraction(BITS), CPUElementwise(BITS))
    mod = pipeline.apply(builder.get(), [*pipeline.fusion(), rules], target)
    (function,) = [f for _, f in mod.functions_items() if isinstance(f, tirx.PrimFunc)]
    assert "parallel" in function.script()
    named = function.with_attr({"global_symbol": "kernel", "target": target})
    return tvm.compile(tvm.IRModule({"kernel": named}), target)["kernel"]


@pytest.mark.parametrize("case", CASES)
def test_kernels_fill_their_results_and_nothing_else(case: str) -> None:
    compute, shapes, meaning = CASES[case]
    kernel = _kernel(compute, shapes)
    rng = np.random.default_rng(0)
    for sizes in ({"b": 1, "n": 5}, {"b": 3, "n": 37}):
        inputs = [
            rng.standard_normal([sizes.get(s, s) for s in shape]).astype("float32")
            for shape in shapes
        ]
        wanted = meaning(*inputs)
        memory = np.full(wanted.size + 2 * GUARD, MARK, np.float32)
        start = GUARD - (memory.ctypes.data // 4) % 16
        result = memory[start : start + wanted.size].reshape(wanted.shape)
        kernel(*map(tvm.runtime.tensor, inputs), tvm.runtime.from_dlpack(result))
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)
        assert (memory[:start] == MARK).all()
        assert (memory[start + wanted.size :] == MARK).all()
