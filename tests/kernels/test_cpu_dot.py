"""The CPU's matmuls by products of bytes against numpy, with activations quantized as they are defined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402

from edgec.layouts import dot4  # noqa: E402
from edgec.layouts.mlc import SCALE, WEIGHT, ZERO  # noqa: E402
from edgec.quantization.tensors import QuantizedTensor  # noqa: E402
from edgec.scheduling.kernels.byte_dots import ByteDots  # noqa: E402
from edgec.scheduling.kernels.cpu_dot import linear_kernel  # noqa: E402
from edgec.scheduling.kernels.linear import Linear  # noqa: E402
from edgec.target import cpu_features  # noqa: E402

pytestmark = pytest.mark.slow

F32, F16 = "float32", "float16"
CPUS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "avx2": ({"mcpu": "x86-64-v3"}, {"avx2"}),
    "avx512": ({"mcpu": "x86-64-v4", "mattr": ["+avx512vnni"]}, {"avx512f", "avx512_vnni"}),
}
# Both widths of codes, all groups, zero points, whole and ragged tiles, halves and floats.
LAYERS = [
    Linear(64, 256, F32, F32, "uint32", 4, 32, F16, tiled=True),
    Linear(37, 192, F16, F16, "uint32", 4, 64, F16, tiled=True),
    Linear(50, 256, F32, F32, "uint32", 4, 128, F32, zeros=True, tiled=True),
    Linear(23, 96, F32, F32, "uint32", 8, 32, F32, tiled=True),
    Linear(48, 256, F16, F32, "uint32", 8, 128, F16, zeros=True, tiled=True),
]


def quantized(layer: Linear) -> QuantizedTensor:
    random = np.random.default_rng(layer.n)
    end = 1 << (layer.bits - 1)
    codes = random.integers(-end, end, (layer.n, layer.k)).astype(np.int8)
    # The largest products there are, which 16 bits must hold where they are summed in pairs.
    codes[: layer.n // 4] = end - 1
    codes[-1] = -end
    scales = random.uniform(-1, 1, (layer.n, layer.k // layer.group)).astype(layer.scale_dtype)
    zeros = random.integers(-end, end, scales.shape).astype(np.int8) if layer.zeros else None
    return QuantizedTensor(codes, scales, layer.bits, zeros)


def activations(layer: Linear, rows: int) -> np.ndarray:
    random = np.random.default_rng(rows)
    x = random.standard_normal((rows, layer.k)).astype(layer.x_dtype)
    x[0, : layer.k // 2] = 127  # the largest magnitude everywhere
    x[-1, -layer.group :] = 0  # nothing to divide by
    return x


def as_quantized(x: np.ndarray, group: int) -> np.ndarray:
    """What the kernel computes with, in float64."""
    groups = x.astype(np.float32).reshape(len(x), -1, group)
    top = np.abs(groups).max(axis=2, keepdims=True)
    inverse = np.float32(127) / np.where(top > 0, top, np.float32(1))
    scale = (top * np.float32(1 / 127)).astype(np.float64)
    return (np.rint(groups * inverse) * scale).reshape(x.shape)


class Compiled:
    """A layer's kernels for one row and for many, as machine code."""

    def __init__(self, layer: Linear, cpu: str) -> None:
        self._layer = layer
        target = tvm.target.Target({"kind": "llvm", **CPUS[cpu][0]})
        dots = ByteDots.of(target)
        assert dots is not None
        self._kernels = [linear_kernel(layer, dots, single=single) for single in (False, True)]
        functions = {}
        for number, kernel in enumerate(self._kernels):
            assert kernel.preparation is not None
            functions[f"prepare_{number}"] = kernel.preparation.function
            functions[f"matmul_{number}"] = kernel.function
        module = tvm.IRModule(
            {name: item.with_attr("global_symbol", name) for name, item in functions.items()}
        )
        self._library = tvm.runtime.Executable(tvm.tirx.build(module, target))

    def __call__(self, x: np.ndarray, tensor: QuantizedTensor) -> np.ndarray:
        number = int(len(x) == 1)
        preparation = self._kernels[number].preparation
        assert preparation is not None
        packed = dot4.pack(tensor)
        stored = [packed[name] for name in (WEIGHT, SCALE, ZERO) if name in packed]
        prepared = [tvm.runtime.empty(*item) for item in preparation.outputs(len(x))]
        y = tvm.runtime.tensor(np.full((len(x), self._layer.n), np.nan, self._layer.y_dtype))
        self._library[f"prepare_{number}"](tvm.runtime.tensor(x), *prepared)
        self._library[f"matmul_{number}"](*prepared, *map(tvm.runtime.tensor, stored), y)
        result: np.ndarray = y.numpy()
        return result


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer.name}_by_{layer.group}")
@pytest.mark.parametrize("cpu", CPUS)
def test_matmul_equals_float64(layer: Linear, cpu: str) -> None:
    if not CPUS[cpu][1] <= cpu_features():
        pytest.skip(f"this CPU has no {cpu}")
    tensor = quantized(layer)
    weights = tensor.dequantize().astype(np.float64)
    run = Compiled(layer, cpu)
    for rows in (1, 2, 3, 5, 8, 21):
        x = activations(layer, rows)
        wanted = as_quantized(x, layer.group) @ weights.T
        result = run(x, tensor)
        # Sums within a group are exact. Each group adds three roundings to float32: of the product of
        # the scales, of its product with the sum, of the sum over groups.
        magnitude = np.abs(as_quantized(x, layer.group)) @ np.abs(weights).T
        groups = layer.k // layer.group
        bound = (2 + groups) * 2.0**-24 * magnitude + 1e-6
        if layer.y_dtype == F16:
            bound += 2.0**-11 * np.abs(wanted) + 2.0**-24
        assert (np.abs(result - wanted) <= bound).all(), rows


@pytest.mark.parametrize("cpu", CPUS)
def test_a_rows_results_do_not_depend_on_the_rows_beside_it(cpu: str) -> None:
    if not CPUS[cpu][1] <= cpu_features():
        pytest.skip(f"this CPU has no {cpu}")
    layer = LAYERS[0]
    tensor, x = quantized(layer), activations(layer, 21)
    run = Compiled(layer, cpu)
    whole = run(x, tensor)
    for first, last in ((0, 1), (5, 6), (4, 7), (3, 16)):
        part = run(x[first:last], tensor)
        np.testing.assert_array_equal(part, whole[first:last])
