"""Experts by products of bytes against numpy, with activations quantized as they are defined."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402

from edgec.layouts import dot4  # noqa: E402
from edgec.passes.reference_kernels import reference_kernels  # noqa: E402
from edgec.scheduling.kernels.byte_dots import ByteDots  # noqa: E402
from edgec.scheduling.kernels.cpu_experts import CPUExperts  # noqa: E402
from edgec.scheduling.kernels.experts import EXPERTS, Experts  # noqa: E402
from edgec.scheduling.kernels.linear import Linear  # noqa: E402
from edgec.target import cpu_features  # noqa: E402
from kernels.test_cpu_dot import CPUS, F16, F32, activations, as_quantized, quantized  # noqa: E402

pytestmark = pytest.mark.slow

# Both widths of codes, all groups, with zero points and without, rows that slots share and that they
# don't; as many parts as each expert has steps, fewer, and a last one that is smaller.
LAYERS = [
    Experts(Linear(48, 64, F32, F32, "uint32", 4, 32, F16, tiled=True), experts=5, share=2),
    Experts(Linear(304, 128, F16, F16, "uint32", 4, 64, F16, tiled=True), experts=40, share=1),
    Experts(
        Linear(32, 256, F32, F32, "uint32", 8, 128, F32, zeros=True, tiled=True),
        experts=3,
        share=3,
    ),
]
# Of two tokens, enough to fill register tiles and to leave each size of a last block; of many.
TOKENS = (1, 2, 21, 150)


def ids_of(layer: Experts, tokens: int) -> np.ndarray:
    """Experts by slot, some of them often, some never."""
    random = np.random.default_rng(tokens)
    popular = random.geometric(0.3, tokens * layer.share) - 1
    even = random.integers(0, layer.experts, tokens * layer.share)
    taken = np.where(random.random(len(even)) < 0.5, popular, even)
    return np.minimum(taken, layer.experts - 1).astype(np.int32)


class Kernels:
    """A layer's kernels for one token and for many, and how they are called.

    Attributes:
        module: with all of them.
    """

    def __init__(self, layer: Experts, target: Any) -> None:
        kernels = CPUExperts(256, ByteDots.of(target))
        self._layer = layer
        self._plans: list[Any] = []
        functions: dict[str, Any] = {}
        for number, single in enumerate((False, True)):
            plan = kernels.preparation(layer, slots=layer.share if single else None)
            assert plan is not None
            self._plans.append(plan)
            functions[f"prepare_{number}"] = plan.function
            matmul = kernels.matmul(layer, single=single).with_attr(EXPERTS, layer.to_json())
            functions[f"matmul_{number}"] = matmul
        self.module = tvm.IRModule(
            {name: item.with_attr("global_symbol", name) for name, item in functions.items()}
        )

    def run(self, call: Any, new: Any, x: np.ndarray, ids: np.ndarray, stored: Any) -> list[Any]:
        """Words, scales and terms of the activations, and the results.

        Args:
            call: calls a function by its name.
            new: makes a tensor of an array.
            x: the activations.
            ids: the expert of each slot.
            stored: the weights.
        """
        number, linear = int(len(ids) == self._layer.share), self._layer.linear
        outputs = self._plans[number].outputs(len(x))
        prepared = [new(np.full(shape, 77, dtype)) for shape, dtype in outputs]
        y = new(np.full((len(ids), linear.n), np.nan, linear.y_dtype))
        call(f"prepare_{number}", new(x), *prepared)
        call(f"matmul_{number}", *prepared, *(new(item) for item in (ids, *stored)), y)
        return [item.numpy() for item in (*prepared, y)]


@cache
def compiled(number: int, cpu: str, *, meaning: bool = False) -> Any:
    """What runs a layer's kernels, or their references, as machine code."""
    if not CPUS[cpu][1] <= cpu_features():
        pytest.skip(f"this CPU has no {cpu}")
    target = tvm.target.Target({"kind": "llvm", **CPUS[cpu][0]})
    kernels = Kernels(LAYERS[number], target)
    module = kernels.module
    if meaning:
        module, target = reference_kernels(module), tvm.target.Target("llvm")
    library = tvm.runtime.Executable(tvm.tirx.build(module, target))
    return partial(
        kernels.run, lambda name, *arguments: library[name](*arguments), tvm.runtime.tensor
    )


def stored_of(layer: Experts) -> list[np.ndarray]:
    return list(dot4.pack(quantized(layer.all)).values())


@pytest.mark.parametrize(
    ("cpu", "number"),
    [
        ("avx2", 1),
        ("avx2", 2),
        ("avx512", 0),
        ("avx512", 2),
        pytest.param("avx2", 0, marks=pytest.mark.nightly),
        pytest.param("avx512", 1, marks=pytest.mark.nightly),
    ],
)
def test_products_equal_float64(cpu: str, number: int) -> None:
    run, layer = compiled(number, cpu), LAYERS[number]
    linear, tensor, stored = layer.linear, quantized(layer.all), stored_of(layer)
    weights = tensor.dequantize().astype(np.float64).reshape(layer.experts, linear.n, linear.k)
    for tokens in TOKENS:
        x, ids = activations(linear, tokens), ids_of(layer, tokens)
        mine = as_quantized(x, linear.group)[np.arange(len(ids)) // layer.share]
        wanted = np.einsum("sk,snk->sn", mine, weights[ids])
        # As of a linear layer: sums within a group are exact, and each group adds three roundings.
        magnitude = np.einsum("sk,snk->sn", np.abs(mine), np.abs(weights[ids]))
        bound = (2 + linear.k // linear.group) * 2.0**-24 * magnitude + 1e-6
        if linear.y_dtype == F16:
            bound += 2.0**-11 * np.abs(wanted) + 2.0**-24
        assert (np.abs(run(x, ids, stored)[-1] - wanted) <= bound).all(), tokens


@pytest.mark.parametrize(("cpu", "number"), [("avx2", 2), ("avx512", 0)])
def test_a_tokens_results_do_not_depend_on_the_tokens_beside_it(cpu: str, number: int) -> None:
    run, layer = compiled(number, cpu), LAYERS[number]
    stored = stored_of(layer)
    x, ids = activations(layer.linear, 50), ids_of(layer, 50)
    whole = run(x, ids, stored)[-1]
    for first, last in ((0, 1), (7, 8), (4, 7), (3, 41)):
        slots = slice(first * layer.share, last * layer.share)
        part = run(x[first:last], ids[slots], stored)[-1]
        np.testing.assert_array_equal(part, whole[slots])


@pytest.mark.parametrize("number", [2, pytest.param(0, marks=pytest.mark.nightly)])
def test_references_compute_what_the_kernels_do(number: int) -> None:
    """Every word, scale and term of the activations exactly."""
    kernels, meanings = (compiled(number, "avx2", meaning=meaning) for meaning in (False, True))
    layer, stored = LAYERS[number], stored_of(LAYERS[number])
    for tokens in TOKENS[:-1]:
        arguments = activations(layer.linear, tokens), ids_of(layer, tokens), stored
        (*found, y), (*wanted, right) = kernels(*arguments), meanings(*arguments)
        for got, expected in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(got, expected)
        assert np.abs(y - right).max() <= 1e-6 * np.abs(right).max()
