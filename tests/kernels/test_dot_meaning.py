"""The references of matmuls by products of bytes against the kernels that they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402

from edgec.layouts import dot4  # noqa: E402
from edgec.passes.reference_kernels import reference_kernels  # noqa: E402
from edgec.scheduling.kernels.byte_dots import ByteDots  # noqa: E402
from edgec.scheduling.kernels.cpu_dot import linear_kernel  # noqa: E402
from edgec.scheduling.kernels.linear import LINEAR  # noqa: E402
from edgec.target import cpu_features  # noqa: E402
from kernels.test_cpu_dot import CPUS, LAYERS, activations, quantized  # noqa: E402

pytestmark = pytest.mark.slow


def built(mod: tvm.IRModule, target: Any) -> Any:
    return tvm.runtime.Executable(tvm.tirx.build(mod, target))


@pytest.mark.parametrize(
    "layer",
    [
        LAYERS[2],
        LAYERS[4],
        pytest.param(LAYERS[1], marks=pytest.mark.nightly),
        pytest.param(LAYERS[3], marks=pytest.mark.nightly),
    ],
    ids=lambda layer: f"{layer.name}_by_{layer.group}",
)
def test_references_compute_what_the_kernels_do(layer: Any) -> None:
    """Every word, scale and term of the activations exactly; places that no row has are left alone."""
    if not CPUS["avx2"][1] <= cpu_features():
        pytest.skip("this CPU has no AVX2")
    target = tvm.target.Target({"kind": "llvm", **CPUS["avx2"][0]})
    dots = ByteDots.of(target)
    assert dots is not None
    kernels = [linear_kernel(layer, dots, single=single) for single in (False, True)]
    functions = {}
    for number, kernel in enumerate(kernels):
        assert kernel.preparation is not None
        functions[f"prepare_{number}"] = kernel.preparation.function
        functions[f"matmul_{number}"] = kernel.function.with_attr(LINEAR, layer.to_json())
    mod = tvm.IRModule({n: f.with_attr("global_symbol", n) for n, f in functions.items()})
    meanings = reference_kernels(mod)
    assert {var.name_hint for var in meanings.get_global_vars()} == functions.keys()
    libraries = built(mod, target), built(meanings, tvm.target.Target("llvm"))
    tensor = quantized(layer)
    stored = [tvm.runtime.tensor(array) for array in dot4.pack(tensor).values()]
    for rows in (1, 2, 7, 21):
        number, x = int(rows == 1), activations(layer, rows)
        preparation = kernels[number].preparation
        assert preparation is not None
        found: list[list[np.ndarray]] = []
        for library in libraries:
            prepared = [
                tvm.runtime.tensor(np.full(shape, 77, dtype))
                for shape, dtype in preparation.outputs(rows)
            ]
            y = tvm.runtime.tensor(np.full((rows, layer.n), np.nan, layer.y_dtype))
            library[f"prepare_{number}"](tvm.runtime.tensor(x), *prepared)
            library[f"matmul_{number}"](*prepared, *stored, y)
            found.append([item.numpy() for item in (*prepared, y)])
        for got, wanted in zip(found[0][:3], found[1][:3], strict=True):
            np.testing.assert_array_equal(got, wanted)
        scale = np.abs(found[1][3]).max()
        close = 1e-3 if layer.y_dtype == "float16" else 1e-6
        assert np.abs(found[0][3] - found[1][3]).max() <= close * scale
