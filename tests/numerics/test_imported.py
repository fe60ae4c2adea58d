"""Imported models compute what their frameworks compute, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from edgec.importers.find import import_model, open_source
from edgec.importers.torch_model import TorchModel, examples
from numerics.imported_models import CONFIGS, arguments, compiled, make_unet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgec.importers.imported import ImportedModel, SourceModel

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
HELPERS = Path(__file__).with_name("imported_models.py")
SOURCES = ("bert", "vit", "resnet", "whisper", "unet", "recurrent")


def _open(name: str, folder: Path) -> SourceModel:
    if name not in CONFIGS:
        return open_source(f"torch:{HELPERS}:make_{name}")
    CONFIGS[name]().save_pretrained(folder)
    return open_source(str(folder), seed=0)


def _compare(model: SourceModel, imported: ImportedModel, reference: SourceModel) -> None:
    run = compiled(imported)
    batches = [1, 3] if model.signature.bounds else [1]
    for batch in batches:
        inputs = arguments(model.signature, {"batch": batch, "length": 6 * batch + 1})
        for got, wanted in zip(run(inputs), reference.run(inputs), strict=True):
            _assert_close(got, wanted)


def _assert_close(got: NDArray[Any], wanted: NDArray[Any]) -> None:
    assert got.shape == wanted.shape
    error = np.abs(got.astype(np.float64) - wanted).max() / np.abs(wanted).max()
    assert error < TOLERANCE, error


@pytest.mark.parametrize("name", SOURCES)
def test_through_torch(name: str, tmp_path: Path) -> None:
    model = _open(name, tmp_path)
    imported = model.imported()
    names = [item.name for item in imported.parameters]
    assert len(set(names)) == len(names)
    assert [name for name, _ in imported.weights()] == names
    assert all(
        array.shape == item.shape
        for (_, array), item in zip(imported.weights(), imported.parameters, strict=True)
    )
    _compare(model, imported, model)


@pytest.mark.parametrize("name", ["bert", "unet"])
def test_through_onnx(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    model = _open(name, tmp_path)
    assert isinstance(model, TorchModel)
    inputs, dynamic = examples(model.signature)
    program: Any = torch.onnx.export(
        model.module,
        tuple(inputs),
        dynamic_shapes=(dynamic,) if name == "bert" else dynamic,
        input_names=[item.name for item in model.signature.inputs],
        dynamo=True,
        verbose=False,
    )
    program.save(str(tmp_path / "model.onnx"), external_data=True)
    assert (tmp_path / "model.onnx.data").is_file()
    imported = open_source(str(tmp_path / "model.onnx"), bounds=model.signature.bounds)
    assert [item.name for item in imported.signature.inputs] == [
        item.name for item in model.signature.inputs
    ]
    _compare(model, imported.imported(), imported)


def test_an_exported_program_is_the_module_it_was_made_from(tmp_path: Path) -> None:
    module, inputs, dynamic = make_unet()
    program = torch.export.export(module.eval(), tuple(inputs.values()), dynamic_shapes=dynamic)
    torch.export.save(program, tmp_path / "unet.pt2")
    imported = import_model(str(tmp_path / "unet.pt2"))
    assert imported.inputs[0].shape == ("dim", 3, 16, 24)
    assert dict(imported.bounds) == {"dim": 4}
    assert {item.role for item in imported.parameters} == {"plain"}


def test_replaced_weights_and_rounded_activations_change_the_reference(tmp_path: Path) -> None:
    model = _open("bert", tmp_path)
    imported = model.imported()
    matrices = {item.name for item in imported.parameters if item.role == "linear"}
    assert len(matrices) == 12
    halved: Any = {
        name: np.asarray(array, np.float32) / 2
        for name, array in imported.weights()
        if name in matrices
    }
    whole = imported.weights

    def weights() -> Any:
        return ((name, halved.get(name, array)) for name, array in whole())

    changed = type(imported)(**{**vars(imported), "weights": weights})
    inputs = arguments(model.signature, {"batch": 2, "length": 9})
    (got,), (wanted,) = compiled(changed)(inputs), model.run(inputs, halved)
    _assert_close(got, wanted)
    whole_model: Any = model.run(inputs)[0]
    assert np.abs(wanted - whole_model).max() > 0.01
    for name in matrices:
        rounded: Any = model.run(inputs, halved, {name: 32})[0]
        assert 0 < np.abs(rounded - wanted).max() < 0.1 * np.abs(wanted).max(), name
