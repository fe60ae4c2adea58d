"""Tensors in planned memory are made once in a function and stay to its end; others go as they did."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402
from tvm import relax  # noqa: E402

from edgec.passes import pipeline  # noqa: E402

pytestmark = pytest.mark.slow

TARGET = tvm.target.Target({"kind": "llvm", "mcpu": "x86-64"})
LAYERS = 6
FLOAT = "float32"
BOUND = 32


def network(*, bounded: bool = True) -> tvm.IRModule:
    """Layers on ``(1, n, 8)`` that look at it in several shapes, and on a tuple of weights."""
    builder = relax.BlockBuilder()
    n = tvm.tirx.Var("n", "int64")
    x = relax.Var("x", relax.TensorType((1, n, 8), FLOAT))
    weights = relax.Var(
        "packed_params", relax.TupleType([relax.TensorType((2, 4), FLOAT)] * LAYERS)
    )
    attributes = {"num_input": 1, **({"tir_var_upper_bound": {"n": BOUND}} if bounded else {})}
    with builder.function("main", [x, weights], attrs=attributes):
        with builder.dataflow():
            states: Any = x
            for layer in range(LAYERS):
                weight = builder.emit(relax.TupleGetItem(weights, layer))
                flat = builder.emit(relax.op.reshape(states, (n, 8)))
                heads = builder.emit(relax.op.reshape(flat, (n, 2, 4)))
                scaled = builder.emit(relax.op.multiply(heads, weight))
                # A kernel of its own, which isn't merged with the others.
                total = builder.emit(relax.op.nn.softmax(scaled, axis=2))
                branch = builder.emit(relax.op.reshape(total, (1, n, 8)))
                states = builder.emit(relax.op.add(states, branch))
            result = builder.emit_output(relax.op.exp(states))
        builder.emit_func_output(result)
    return builder.finalize()


def lowered(mod: tvm.IRModule, *, shares: bool) -> tvm.IRModule:
    passes = [*pipeline.fusion(), *pipeline.plan_passes(), *pipeline.machine_passes()]
    if not shares:
        passes = [step for step in passes if step.info.name not in {"ShareTensors", "KeepPlanned"}]
    return pipeline.apply(mod, passes, TARGET)


class Machine:
    """A module in the virtual machine, and the functions that it calls."""

    def __init__(self, mod: tvm.IRModule) -> None:
        self.calls: list[str] = []
        built = relax.build(mod, TARGET, relax_pipeline=None)
        self._machine = relax.VirtualMachine(built, tvm.cpu())
        self._machine.set_instrument(self._observe)

    def __call__(self, x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
        self.calls.clear()
        stored = [tvm.runtime.tensor(weight) for weight in weights]
        result: np.ndarray = self._machine["main"](tvm.runtime.tensor(x), stored).numpy()
        return result

    def _observe(self, _function: Any, name: Any, before: Any, *_rest: Any) -> None:
        if before:
            self.calls.append(str(name))

    def count(self, name: str) -> int:
        return sum(name in call for call in self.calls)


def expected(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    states = x.astype(np.float64)
    for weight in weights:
        scaled = states.reshape(-1, 2, 4) * weight
        powers = np.exp(scaled)
        states = states + (powers / powers.sum(2, keepdims=True)).reshape(states.shape)
    result: np.ndarray = np.exp(states)
    return result


def problem(rows: int) -> tuple[np.ndarray, list[np.ndarray]]:
    random = np.random.default_rng(rows)
    x = random.uniform(-1, 1, (1, rows, 8)).astype(FLOAT)
    return x, [random.uniform(-0.3, 0.3, (2, 4)).astype(FLOAT) for _ in range(LAYERS)]


@pytest.mark.parametrize("bounded", [True, False])
def test_results_are_the_same_in_fewer_calls(bounded: bool) -> None:
    plain, shared = (
        Machine(lowered(network(bounded=bounded), shares=shares)) for shares in (False, True)
    )
    for rows in (1, 7, BOUND, 2):
        x, weights = problem(rows)
        result = shared(x, weights)
        np.testing.assert_allclose(result, expected(x, weights), rtol=1e-5)
        np.testing.assert_array_equal(result, plain(x, weights))
    kernels = LAYERS * 3
    assert len(plain.calls) > 6 * kernels
    if bounded:
        # A weight and three kernels for each layer, and what is there once.
        assert len(shared.calls) < kernels + LAYERS + 30
        assert shared.count("reshape") <= 1
        # In two places in turn, each in a few shapes.
        assert shared.count("alloc_tensor") < 10


def test_memory_of_its_own_goes_after_its_last_use() -> None:
    """Memory without a bound is let go of, with all tensors in it but the result."""
    text = lowered(network(bounded=False), shares=True)["main"].script()
    made = set(re.findall(r"(\w+): .* = R\.vm\.alloc_(?:storage|tensor)\(", text))
    gone = set(re.findall(r"kill_object\((\w+)\)", text))
    (result,) = re.findall(r"return (\w+)", text)
    assert made - gone == {result}
    assert len(made) > 4
    planned = lowered(network(), shares=True)["main"].script()
    assert planned.count("kill_object") <= 1  # of the result's memory


def test_what_the_caller_gets_survives_the_next_call() -> None:
    machine = Machine(lowered(network(), shares=True))
    x, weights = problem(3)
    first = machine._machine["main"](tvm.runtime.tensor(x), list(map(tvm.runtime.tensor, weights)))
    before = first.numpy().copy()
    machine(-x, weights)
    np.testing.assert_array_equal(first.numpy(), before)


def test_functions_with_branches_stay_as_they_are() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((4, 8), FLOAT))
    condition = relax.Var("condition", relax.TensorType((), "bool"))
    with builder.function("main", [x, condition]):
        one, two = (relax.op.reshape(x, shape) for shape in ((32,), (8, 4)))
        ways = [relax.SeqExpr([], relax.op.reshape(way, (2, 16))) for way in (one, two)]
        builder.emit_func_output(builder.emit(relax.If(condition, *ways)))
    mod = pipeline.apply(builder.finalize(), [relax.transform.Normalize()], TARGET)
    for step in pipeline.machine_passes():
        if step.info.name in {"ShareTensors", "KeepPlanned"}:
            tvm.ir.assert_structural_equal(step(mod), mod)
