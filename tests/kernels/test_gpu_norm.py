"""Residual addition and RMS norm on GPUs, and the pass that makes one kernel of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402
from tvm import relax  # noqa: E402

from edgec.models import llama  # noqa: E402
from edgec.passes.fuse_add_norm import FuseAddNorm  # noqa: E402
from edgec.scheduling.kernels.gpu_norm import norm_kernels, norm_of_rows  # noqa: E402
from edgec.scheduling.kernels.norm import Norm  # noqa: E402
from kernels.gpu_functions import (  # noqa: E402
    BROWSER,
    IPHONE,
    JETSON,
    PHONE,
    SMALL,
    call,
    limits,
    slow_types,
    source,
)
from kernels.norm_problem import EPSILON, Array, exact  # noqa: E402
from standin_tools import needs  # noqa: E402

pytestmark = pytest.mark.slow
executes = [needs("clang"), needs("clang++")]


class TestKernel:
    pytestmark = executes

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    @pytest.mark.parametrize(
        "shape", [(1, 1, 256), (3, 5, 100), (7, 3072), (2, 1, 2049), (2, 3, 5, 64)]
    )
    @pytest.mark.parametrize(
        ("target", "centered"),
        [*((target, False) for target in (PHONE, SMALL, IPHONE, JETSON)), (SMALL, True)],
        ids=lambda value: value["kind"] if isinstance(value, dict) else ("rms", "layer")[value],
    )
    def test_equals_float64(
        self, shape: tuple[int, ...], dtype: str, target: dict[str, Any], centered: bool
    ) -> None:
        generator = np.random.default_rng(0)
        # Far from 0, where a layer norm's variance is a small part of the squares.
        middle = 8 * centered
        x, addend = (generator.normal(middle, 2, shape).astype(dtype) for _ in range(2))
        weight = generator.normal(1, 0.1, shape[-1]).astype(dtype)
        learned = [weight, generator.normal(0, 1, shape[-1]).astype(dtype)][: 1 + centered]
        empty = np.full(shape, np.nan, dtype)
        # Largest value about 4, of layer norms 8; half an ulp of it in float16, several in float32.
        tolerance = (8 if centered else 4) * (2**-11 if dtype == "float16" else 2**-22)

        def run(norm: Norm, *arguments: Array) -> list[Any]:
            return call(norm_of_rows(norm, limits(target)), target, *arguments)

        alone = Norm(shape[-1], dtype, EPSILON, centered=centered, leading=len(shape) - 1)
        y = run(alone, x, *learned, empty)[-1]
        np.testing.assert_allclose(y, exact(x, *learned), rtol=0, atol=tolerance)
        total = x + addend
        y = run(replace(alone, adds=True), x, addend, *learned, empty)[-1]
        np.testing.assert_allclose(y, exact(total, *learned), rtol=0, atol=tolerance)
        both = replace(alone, adds=True, keeps_sum=True)
        *_, stored, y = run(both, x, addend, *learned, empty, empty)
        np.testing.assert_array_equal(stored, total)
        np.testing.assert_allclose(y, exact(total, *learned), rtol=0, atol=tolerance)

    @pytest.mark.parametrize("centered", [False, True], ids=["rms", "layer"])
    def test_rows_too_long_for_registers(self, centered: bool) -> None:
        shape = (2, 12_288)
        generator = np.random.default_rng(0)
        x, addend = (generator.normal(0, 2, shape).astype(np.float32) for _ in range(2))
        learned = [np.ones(shape[-1], np.float32)] * (1 + centered)
        empty = np.full(shape, np.nan, np.float32)
        norm = Norm(shape[-1], "float32", EPSILON, centered=centered, leading=1)
        kernel = norm_of_rows(replace(norm, adds=True, keeps_sum=True), limits(SMALL))
        *_, stored, y = call(kernel, SMALL, x, addend, *learned, empty, empty)
        np.testing.assert_array_equal(stored, x + addend)
        np.testing.assert_allclose(y, exact(x + addend, *learned), rtol=0, atol=4e-6)

    @pytest.mark.parametrize("centered", [False, True], ids=["rms", "layer"])
    def test_lanes_race_for_nothing(self, centered: bool) -> None:
        x = np.ones((2, 3, 100), np.float32)
        norm = Norm(100, "float32", EPSILON, centered=centered, adds=True, keeps_sum=True)
        empty = np.full_like(x, np.nan)
        learned = [x[0, 0]] * (1 + centered)
        arguments = (x, x, *learned, empty, empty)
        *_, y = call(norm_of_rows(norm, limits(SMALL)), SMALL, *arguments, checked=True)
        # One is the mean's multiple, or the bias.
        np.testing.assert_allclose(y, 1, atol=1e-5)


@pytest.mark.parametrize("target", [PHONE, IPHONE, JETSON, BROWSER], ids=lambda t: t["kind"])
def test_kernels_compile_for_every_platform(target: dict[str, Any]) -> None:
    for dtype, centered in (("float16", False), ("float32", True)):
        norm = Norm(2048, dtype, EPSILON, centered=centered, adds=True, keeps_sum=True)
        assert not slow_types(source(norm_of_rows(norm, limits(target)), target))


def function(body: Any, names: str = "abc") -> Any:
    """A module with one function of (1, n, 64) tensors and a weight."""
    builder = relax.BlockBuilder()
    n = tvm.tirx.Var("n", "int64")
    tensors = [relax.Var(name, relax.TensorType((1, n, 64), "float16")) for name in names]
    weight = relax.Var("weight", relax.TensorType((64,), "float16"))
    with builder.function("main", [*tensors, weight]):
        with builder.dataflow():
            results = [builder.emit_output(item) for item in body(builder, *tensors, weight)]
        builder.emit_func_output(relax.Tuple(results))
    return builder.finalize()


def fused(mod: Any) -> tuple[list[str], list[str]]:
    """Names of the operators that are left, and of the kernels that are called."""
    after = FuseAddNorm(norm_kernels(limits(PHONE)))(mod)
    calls = [
        binding.value
        for block in after["main"].body.blocks
        for binding in block.bindings
        if isinstance(binding.value, relax.Call)
    ]
    kernels = [c.args[0].name_hint for c in calls if c.op.name == "relax.call_tir"]
    return [c.op.name for c in calls if c.op.name != "relax.call_tir"], kernels


def norm_of(x: Any, weight: Any) -> Any:
    return relax.op.nn.rms_norm(x, weight, axes=[-1], epsilon=EPSILON)


def test_sum_that_is_read_again_is_a_result_too() -> None:
    def body(builder: Any, a: Any, b: Any, c: Any, weight: Any) -> list[Any]:
        total = builder.emit(relax.op.add(a, b))
        y = builder.emit(norm_of(total, weight))
        return [relax.op.multiply(y, c), relax.op.multiply(total, c)]

    operators, kernels = fused(function(body))
    assert operators == ["relax.multiply", "relax.multiply"]
    assert kernels == ["add_rms_norm_64"]


def test_sum_that_is_the_functions_result_is_kept() -> None:
    def body(builder: Any, a: Any, b: Any, c: Any, weight: Any) -> list[Any]:
        total = builder.emit_output(relax.op.add(a, b))
        return [norm_of(total, weight), total]

    assert fused(function(body)) == ([], ["add_rms_norm_64"])


def test_sum_for_the_norm_alone_is_not_stored() -> None:
    def body(builder: Any, a: Any, b: Any, c: Any, weight: Any) -> list[Any]:
        return [norm_of(builder.emit(relax.op.add(a, b)), weight)]

    assert fused(function(body)) == ([], ["rms_norm_of_sum_64"])


def test_sum_that_is_read_before_the_norm_stays() -> None:
    def body(builder: Any, a: Any, b: Any, c: Any, weight: Any) -> list[Any]:
        total = builder.emit(relax.op.add(a, b))
        scaled = builder.emit(relax.op.multiply(total, c))
        return [norm_of(total, weight), scaled]

    operators, kernels = fused(function(body))
    assert (sorted(operators), kernels) == (["relax.add", "relax.multiply"], ["rms_norm_64"])


def test_second_norm_of_a_sum_reads_the_first_ones() -> None:
    def body(builder: Any, a: Any, b: Any, c: Any, weight: Any) -> list[Any]:
        total = builder.emit(relax.op.add(a, b))
        return [builder.emit(norm_of(total, weight)), builder.emit(norm_of(total, weight))]

    assert fused(function(body)) == ([], ["add_rms_norm_64", "rms_norm_64"])


def test_addition_that_broadcasts_stays() -> None:
    def body(builder: Any, a: Any, b: Any, c: Any, weight: Any) -> list[Any]:
        return [norm_of(builder.emit(relax.op.add(a, weight)), weight)]

    assert fused(function(body)) == (["relax.add"], ["rms_norm_64"])


def test_layer_norms_have_kernels_too() -> None:
    def layer_norm(x: Any, weight: Any) -> Any:
        return relax.op.nn.layer_norm(x, weight, weight, axes=[-1], epsilon=EPSILON)

    def body(builder: Any, a: Any, b: Any, c: Any, weight: Any) -> list[Any]:
        total = builder.emit(relax.op.add(a, b))
        y = builder.emit(layer_norm(total, weight))
        return [layer_norm(relax.op.add(y, c), weight), relax.op.multiply(total, c)]

    assert fused(function(body)) == (
        ["relax.multiply"],
        ["add_layer_norm_64", "layer_norm_of_sum_64"],
    )


def test_norms_of_heads_have_one_kernel() -> None:
    """Of queries and of keys, whose numbers of heads differ."""
    builder = relax.BlockBuilder()
    n = tvm.tirx.Var("n", "int64")
    tensors = [
        relax.Var(name, relax.TensorType((1, n, heads, 64), "float16"))
        for name, heads in (("query", 6), ("key", 2))
    ]
    weight = relax.Var("weight", relax.TensorType((64,), "float16"))
    with builder.function("main", [*tensors, weight]):
        with builder.dataflow():
            results = [builder.emit_output(norm_of(item, weight)) for item in tensors]
        builder.emit_func_output(relax.Tuple(results))
    assert fused(builder.finalize()) == ([], ["rms_norm_64", "rms_norm_64"])


def test_layers_of_a_model_share_three_kernels() -> None:
    config = {
        "vocab_size": 128,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    model = llama.build(llama.Config.from_hf(config), "float16")
    mod, _ = model.export_tvm(spec=model.export_spec())
    after = FuseAddNorm(norm_kernels(limits(PHONE)))(mod)
    kernels = {v.name_hint for v, f in after.functions_items() if isinstance(f, tvm.tirx.PrimFunc)}
    assert kernels - {"last_position"} == {"add_rms_norm_64", "rms_norm_64", "rms_norm_of_sum_64"}
    assert "nn.rms_norm" not in after.script()
