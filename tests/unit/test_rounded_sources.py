"""Sources whose linear layers round their inputs, against the definition in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from edgec.importers.imported import Signature, TensorType  # noqa: E402
from edgec.importers.onnx_source import OnnxModel  # noqa: E402
from edgec.importers.raw import TRANSPOSED  # noqa: E402
from edgec.importers.torch_model import TorchModel  # noqa: E402

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((3, 5, 64)).astype(np.float32)
X[0, 0, :32] = 0
FIRST = RANDOM.standard_normal((96, 64)).astype(np.float32)
SECOND = RANDOM.standard_normal((10, 96)).astype(np.float32)
BIAS = RANDOM.standard_normal(96).astype(np.float32)


def rounded(x: np.ndarray, group: int | None) -> np.ndarray:
    if group is None:
        return x
    groups = x.reshape(-1, group)
    scales = np.abs(groups).max(axis=1, keepdims=True) / np.float32(127)
    steps = np.rint(groups / np.where(scales > 0, scales, 1))
    return (steps * scales).reshape(x.shape)


def expected(first: int | None, second: int | None) -> np.ndarray:
    hidden = np.maximum(rounded(X, first) @ FIRST.T + BIAS, 0)
    return rounded(hidden, second) @ SECOND.T


def torch_model() -> Any:
    module = torch.nn.Sequential(
        torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 10, bias=False)
    )
    module[0].bias.data = torch.from_numpy(BIAS)
    types = (TensorType("x", X.shape, "float32"),)
    return TorchModel(module, Signature(types, {}), where="x"), ("0.weight", "2.weight")


def onnx_model(opset: int) -> Any:
    """The first layer as a MatMul with weights (in, out), the second as a Gemm of rows."""
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Add", ["a", "bias"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Reshape", ["c", "shape"], ["d"]),
        helper.make_node("Gemm", ["d", "second"], ["y"], transB=1),
    ]
    tensors = {
        "first": np.zeros((64, 96), np.float32),
        "bias": BIAS,
        "second": np.zeros((10, 96), np.float32),
        "shape": np.array([-1, 96]),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (15, 10))],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return OnnxModel(model, "x"), (f"first{TRANSPOSED}", "second")


@pytest.mark.parametrize(
    ("first", "second"), [(None, None), (32, None), (None, 96), (64, 32), (32, 48)]
)
@pytest.mark.parametrize("kind", ["torch", "opset 13", "opset 18"])
def test_the_layers_that_are_named_round(kind: str, first: int | None, second: int | None) -> None:
    made = torch_model() if kind == "torch" else onnx_model(int(kind.split()[1]))
    model, names = made
    replaced = dict(zip(names, (FIRST, SECOND), strict=True))
    groups = {
        name: group for name, group in zip(names, (first, second), strict=True) if group is not None
    }
    (found,) = model.run([X], replaced, groups)
    wanted = expected(first, second).reshape(found.shape)
    # Sums in another order, which may move a number of the hidden states to the next step.
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert error < (1e-6 if second is None else 1e-3)
    (again,) = model.run([X], replaced)
    np.testing.assert_allclose(again, expected(None, None).reshape(again.shape), atol=1e-4)
    loss = np.abs(wanted.reshape(again.shape) - again).max() / np.abs(again).max()
    assert (loss > 1e-3) == bool(groups)
