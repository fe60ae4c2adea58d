"""What comes before linear layers on bytes quantizes its results itself, and nothing else changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402
from tvm import relax, tirx  # noqa: E402

from edgec.models.blocks import QUANTIZED_MATMUL  # noqa: E402
from edgec.passes import pipeline  # noqa: E402
from edgec.passes.fuse_add_norm import FuseAddNorm  # noqa: E402
from edgec.passes.fuse_quantize import FuseQuantize  # noqa: E402
from edgec.passes.lower_linear import LowerLinear  # noqa: E402
from edgec.scheduling.kernels.cpu_linear import (  # noqa: E402
    linear_kernels,
    quantizes_in_producers,
)
from edgec.scheduling.kernels.cpu_norm import norm_kernels  # noqa: E402
from edgec.scheduling.rules.cpu import CPUElementwise  # noqa: E402
from edgec.target import load_target  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.slow

BITS = 256
TARGET = tvm.target.Target(dict(load_target("x86-64-v3").tvm))
F16 = "float16"
K, GROUP = 64, 32
EPSILON = 1e-5


class _Net:
    """Puts a function of ``a`` and ``b (1, n, 64)`` together, with random weights."""

    def __init__(self, rows: int | None) -> None:
        self.builder = relax.BlockBuilder()
        self.rows: Any = tirx.Var("n", "int64") if rows is None else rows
        self.weights: list[relax.Var] = []

    def linear(self, x: Any, columns: int) -> Any:
        """Of quantized weights in tiles."""
        tiles, k = columns // 16, int(x.ty.shape[-1])
        types = (((tiles, k // 8, 16), "uint32"), ((tiles, k // GROUP, 16), F16))
        stored = [self.weight(*item) for item in types]
        out = relax.TensorType((1, self.rows, columns), F16)
        return self.emit(relax.call_dps_packed(QUANTIZED_MATMUL, [x, *stored], out_ty=out))

    def norm(self, x: Any) -> Any:
        weight = self.weight((int(x.ty.shape[-1]),), F16)
        return self.emit(relax.op.nn.rms_norm(x, weight, axes=[-1], epsilon=EPSILON))

    def weight(self, shape: tuple[int, ...], dtype: str) -> relax.Var:
        self.weights.append(relax.Var(f"w{len(self.weights)}", relax.TensorType(shape, dtype)))
        return self.weights[-1]

    def emit(self, value: Any) -> Any:
        return self.builder.emit(value)

    def module(self, body: Callable[[_Net, Any, Any], list[Any]]) -> tvm.IRModule:
        inputs = [relax.Var(name, relax.TensorType((1, self.rows, K), F16)) for name in "ab"]
        with self.builder.function("main", attrs={"num_input": 2}):
            with self.builder.dataflow():
                results = [self.builder.emit_output(item) for item in body(self, *inputs)]
            self.builder.emit_func_output(relax.Tuple(results), [*inputs, *self.weights])
        return self.builder.finalize()


def lowered(mod: tvm.IRModule, *, fuses: bool) -> tvm.IRModule:
    passes = [FuseAddNorm(norm_kernels(BITS)), LowerLinear(linear_kernels(BITS, TARGET))]
    if fuses:
        passes += [FuseQuantize(BITS), relax.transform.DeadCodeElimination()]
    return pipeline.apply(mod, passes, TARGET)


def calls(mod: tvm.IRModule) -> list[str]:
    """Kernels and operators in order, without views."""
    names = []
    for block in mod["main"].body.blocks:
        for binding in block.bindings:
            call = binding.value
            if isinstance(call, relax.Call):
                kernel = call.op.name == "relax.call_tir"
                names.append(call.args[0].name_hint if kernel else call.op.name)
    return [name for name in names if name != "relax.reshape"]


def computed(mod: tvm.IRModule, rows: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    rule = tvm.s_tir.dlight.ApplyDefaultSchedule(CPUElementwise(BITS))
    passes = [*pipeline.fusion(), rule, *pipeline.plan_passes(), *pipeline.machine_passes()]
    arguments = []
    for parameter in mod["main"].params:
        shape = [int(n) if isinstance(n, tirx.IntImm) else rows for n in parameter.ty.shape.values]
        if parameter.ty.dtype == "uint32":
            value = random.integers(0, 1 << 32, shape, np.uint32)
        else:
            value = random.normal(0, 0.3, shape).astype(F16)
        arguments.append(tvm.runtime.tensor(value))
    bound = pipeline.apply(mod, [tirx.transform.BindTarget(TARGET), *passes], TARGET)
    machine = relax.VirtualMachine(relax.build(bound, TARGET, relax_pipeline=None), tvm.cpu())
    return [item.numpy() for item in machine["main"](*arguments)]


QUANTIZE = f"quantize_float16_{K}_by_{GROUP}_in_1_times_8"


def after_sum(net: _Net, a: Any, b: Any) -> list[Any]:
    """As in a decoder: the sum is read again, the norm by two layers that share their bytes."""
    total = net.emit(relax.op.add(a, b))
    normed = net.norm(total)
    first, second = net.linear(normed, 32), net.linear(normed, 48)
    return [first, second, relax.op.multiply(total, b)]


def read_twice(net: _Net, a: Any, _b: Any) -> list[Any]:
    """The norm itself is a result, too."""
    normed = net.norm(a)
    return [net.linear(normed, 32), relax.op.exp(normed)]


def gated(net: _Net, a: Any, _b: Any) -> list[Any]:
    both = net.linear(a, 2 * K)
    halves = net.emit(relax.op.split(both, 2, axis=-1))
    gate, up = (net.emit(relax.TupleGetItem(halves, index)) for index in range(2))
    return [net.linear(net.emit(relax.op.multiply(net.emit(relax.op.nn.silu(gate)), up)), 32)]


def swapped(net: _Net, a: Any, _b: Any) -> list[Any]:
    """The gate is the second half, as nobody has it: that is not what the kernel computes."""
    both = net.linear(a, 2 * K)
    halves = net.emit(relax.op.split(both, 2, axis=-1))
    up, gate = (net.emit(relax.TupleGetItem(halves, index)) for index in range(2))
    return [net.linear(net.emit(relax.op.multiply(net.emit(relax.op.nn.silu(gate)), up)), 32)]


def product_read_twice(net: _Net, a: Any, _b: Any) -> list[Any]:
    both = net.linear(a, 2 * K)
    halves = net.emit(relax.op.split(both, 2, axis=-1))
    gate, up = (net.emit(relax.TupleGetItem(halves, index)) for index in range(2))
    product = net.emit(relax.op.multiply(net.emit(relax.op.nn.silu(gate)), up))
    return [net.linear(product, 32), relax.op.exp(product)]


@pytest.mark.parametrize(
    ("body", "kernels"),
    [
        (after_sum, [f"add_rms_norm_{K}_quantized", "gemv_q4_32x64", "gemv_q4_48x64"]),
        (read_twice, [f"rms_norm_{K}_quantized", "gemv_q4_32x64"]),
        (gated, [QUANTIZE, "gemv_q4_128x64", f"gated_silu_{K}_quantized", "gemv_q4_32x64"]),
        (swapped, [QUANTIZE, "gemv_q4_128x64", QUANTIZE, "gemv_q4_32x64"]),
        (product_read_twice, [QUANTIZE, "gemv_q4_128x64", QUANTIZE, "gemv_q4_32x64"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_which_kernels_are_one(body: Any, kernels: list[str]) -> None:
    names = calls(lowered(_Net(1).module(body), fuses=True))
    assert [name for name in names if not name.startswith("relax.")] == kernels


@pytest.mark.parametrize(("body", "rows"), [(after_sum, None), (read_twice, 1), (gated, None)])
def test_results_are_the_same(body: Any, rows: int | None) -> None:
    mod = _Net(rows).module(body)
    apart, together = (
        computed(lowered(mod, fuses=fuses), 11 if rows is None else 1) for fuses in (False, True)
    )
    for one, other in zip(apart, together, strict=True):
        assert np.isfinite(one).all()
        if body is gated:
            # The logistic function is computed otherwise, which a byte can make visible.
            scale = float(np.abs(one).max())
            np.testing.assert_allclose(other, one, rtol=0, atol=4e-3 * scale)
        else:
            np.testing.assert_array_equal(one, other)


def test_only_where_kernels_run_on_what_they_are_checked_on() -> None:
    chosen = {
        name: quantizes_in_producers(tvm.target.Target(dict(load_target(name).tvm)))
        for name in ("x86-64-v3", "x86-64-v4", "x86-64-amx", "linux-arm64")
    }
    assert chosen == {
        "x86-64-v3": True,
        "x86-64-v4": True,
        "x86-64-amx": True,
        "linux-arm64": False,
    }
