"""The hand-written CPU matmul against numpy in float64, over shapes that divide badly."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402

from edgec.scheduling.kernels.cpu_matmul import Matmul, many_rows, one_row  # noqa: E402
from kernels.test_gpu_linear import in_words  # noqa: E402

pytestmark = pytest.mark.slow

F32, F16 = "float32", "float16"

# n that isn't a multiple of a tile, k that leaves few lanes, groups wider and narrower than a
# vector, both widths of registers, mixed types.
QUANTIZED = [
    Matmul(64, 128, F32, F32, "uint32", 4, 32, F32, vector_bits=512),
    Matmul(37, 96, F32, F32, "uint32", 4, 32, F32, vector_bits=512),
    Matmul(50, 256, F16, F16, "uint32", 4, 64, F16, vector_bits=512),
    Matmul(33, 256, F16, F32, "uint32", 4, 128, F16, vector_bits=256),
    Matmul(21, 72, F16, F32, "uint32", 8, 24, F16, vector_bits=512),
    Matmul(48, 512, F32, F32, "uint32", 8, 32, F32, vector_bits=256),
    Matmul(5, 8, F32, F32, "uint32", 4, 8, F32, vector_bits=512),
    Matmul(18, 4096, F32, F32, "uint32", 4, 32, F32, vector_bits=512),
    Matmul(37, 640, F16, F16, "uint32", 4, 32, F16, zeros=True, vector_bits=512),
    Matmul(21, 72, F16, F32, "uint32", 8, 24, F16, zeros=True, vector_bits=512),
    Matmul(33, 512, F32, F32, "uint32", 4, 128, F32, zeros=True, vector_bits=256),
]
PLAIN = [
    Matmul(64, 128, F32, F32, F32, vector_bits=512),
    Matmul(37, 100, F32, F32, F32, vector_bits=512),
    Matmul(50, 256, F16, F16, F16, vector_bits=256),
    Matmul(7, 33, F16, F32, F16, vector_bits=512),
]


def _run(p: Matmul, m: int, arguments: list[np.ndarray]) -> np.ndarray:
    function = one_row(p) if m == 1 else many_rows(p)
    target = tvm.target.Target(
        {"kind": "llvm", "mcpu": "x86-64-v4" if _has_avx512() else "x86-64-v3"}
    )
    module = tvm.IRModule({"matmul": function.with_attr("global_symbol", "matmul")})
    library = tvm.runtime.Executable(tvm.tirx.build(module, target))
    y = tvm.runtime.tensor(np.full((m, p.n), np.nan, p.y_dtype))
    library["matmul"](*(tvm.runtime.tensor(item) for item in arguments), y)
    return y.numpy()


def _has_avx512() -> bool:
    from edgec.target import cpu_features  # noqa: PLC0415

    return "avx512f" in cpu_features()


def _tolerance(p: Matmul, x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Bound on the rounding error of each output.

    Products and sums are float32: at most k * 2^-24 of the sum of magnitudes. The constant term
    that the int4 and int8 kernels take out cancels, so magnitudes are those of the stored codes:
    four times covers it. A float16 result is rounded once more, by 2^-11 of its value.
    """
    magnitude = np.abs(x.astype(np.float64)) @ np.abs(weights).T
    bound = 4 * p.k * 2.0**-24 * magnitude + 1e-7
    if p.y_dtype == F16:
        bound += 2.0**-11 * np.abs(x.astype(np.float64) @ weights.T) + 2.0**-24
    return bound


@pytest.mark.parametrize("m", [1, 2, 5, 9])
@pytest.mark.parametrize("p", QUANTIZED, ids=str)
def test_quantized_matmul_equals_float64(p: Matmul, m: int) -> None:
    random = np.random.default_rng(p.n * 1000 + p.k + m)
    codes = random.integers(0, 1 << p.bits, (p.n, p.k)).astype(np.uint32)
    scales = random.uniform(0.5, 1.5, (p.n, p.k // p.group)).astype(p.scale_dtype)
    scales *= random.choice(np.array([-1, 1], p.scale_dtype), scales.shape)
    x = random.uniform(-1, 1, (m, p.k)).astype(p.x_dtype)
    arguments = [x, in_words(codes, p.bits), scales]
    zeros = np.full(scales.shape, (1 << (p.bits - 1)) - 1)
    if p.zeros:
        zeros = random.integers(0, 1 << p.bits, scales.shape)
        arguments.append(in_words(zeros, p.bits))
    weights = (codes.astype(np.float64) - np.repeat(zeros, p.group, axis=1)) * np.repeat(
        scales.astype(np.float64), p.group, axis=1
    )
    expected = x.astype(np.float64) @ weights.T
    # The kernel for one row sums the stored, unsigned codes: up to twice as large as the weights.
    stored = codes * np.repeat(np.abs(scales.astype(np.float64)), p.group, axis=1)
    error = np.abs(_run(p, m, arguments) - expected)
    assert (error <= _tolerance(p, x, np.maximum(np.abs(weights), stored))).all(), error.max()


@pytest.mark.parametrize("m", [1, 3, 8])
@pytest.mark.parametrize("p", PLAIN, ids=str)
def test_plain_matmul_equals_float64(p: Matmul, m: int) -> None:
    random = np.random.default_rng(p.n * 1000 + p.k + m)
    weights = random.uniform(-1, 1, (p.n, p.k)).astype(p.w_dtype)
    x = random.uniform(-1, 1, (m, p.k)).astype(p.x_dtype)
    expected = x.astype(np.float64) @ weights.astype(np.float64).T
    error = np.abs(_run(p, m, [x, weights]) - expected)
    assert (error <= _tolerance(p, x, np.abs(weights.astype(np.float64)))).all(), error.max()
