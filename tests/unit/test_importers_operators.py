"""Operators without a translation, and the form of what is translated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from edgec.errors import CheckpointError, UnsupportedModelError, UsageError
from edgec.importers.find import import_model, open_source
from edgec.importers.imported import Signature, TensorType
from edgec.importers.torch_model import TorchModel

if TYPE_CHECKING:
    from pathlib import Path


class Unusual(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        once = torch.special.i0(x) + torch.linalg.det(x @ x.T)
        result: torch.Tensor = once + torch.special.i0(2 * x)
        return result


def test_operators_of_torch_without_a_translation_are_listed() -> None:
    signature = Signature((TensorType("x", (3, 3), "float32"),), {})
    with pytest.raises(UnsupportedModelError) as caught:
        TorchModel(Unusual(), signature, where="unusual").imported()
    assert str(caught.value) == (
        "unusual: 2 operators of the model can't be translated: _linalg_det.default (once),"
        " i0.default (twice); import an ONNX file of the model, or rewrite that part of it"
    )


def test_operators_of_onnx_without_a_translation_are_listed(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Det", ["x"], ["a"]),
        helper.make_node("MelWeightMatrix", ["a"], ["b"]),
        helper.make_node("Det", ["b"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    with pytest.raises(UnsupportedModelError) as caught:
        import_model(str(tmp_path / "m.onnx"), bounds={"batch": 4})
    assert "2 operators of the model can't be translated: Det (twice), MelWeightMatrix (once)" in (
        str(caught.value)
    )
    with pytest.raises(UsageError, match=r"the largest 'batch' is not given"):
        open_source(str(tmp_path / "m.onnx"))


def test_weights_of_an_onnx_file_stay_below_its_folder(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    tensor = helper.make_tensor("w", onnx.TensorProto.FLOAT, [4], bytes(16), raw=True)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "secret").write_bytes(bytes(16))
    (tmp_path / "model").mkdir()
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [4])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", [x], [y], [tensor])
    (tmp_path / "model" / "m.onnx").write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(CheckpointError, match="onnx can't read it"):
        open_source(str(tmp_path / "model" / "m.onnx"))


SOURCE = """
import torch
def make():
    return torch.nn.Linear(4, 6), (torch.zeros(2, 4),), {"input": {0: torch.export.Dim("n", max=8)}}
def wrong():
    return 3
def breaks():
    raise ValueError("no")
"""


def test_a_function_of_a_python_file(tmp_path: Path) -> None:
    file = tmp_path / "my.py"
    file.write_text(SOURCE)
    model = import_model(f"torch:{file}:make")
    assert model.inputs == (TensorType("input", ("n", 4), "float32"),)
    assert model.outputs == (TensorType("output", ("n", 6), "float32"),)
    roles: Any = [(item.name, item.role, item.shape) for item in model.parameters]
    assert roles == [("weight", "linear", (6, 4)), ("bias", "plain", (6,))]
    assert [var.name for var in model.mod["main"].params] == ["input", "weight", "bias"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "there is no function 'absent'"),
        ("wrong", "wrong returned int; return the module, its example inputs"),
        ("breaks", "the code raised ValueError: no"),
    ],
)
def test_functions_that_give_no_module(name: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "my.py"
    file.write_text(SOURCE)
    with pytest.raises(UsageError) as caught:
        open_source(f"torch:{file}:{name}")
    assert message in str(caught.value)
