"""Encoders, a convolutional network and an embedding model, from their source to every kind of target.

What the stages compare with is torch in float32, which runs the model as transformers wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.artifacts.interface import read_interface
from edgec.artifacts.library_metadata import NO_CACHE
from edgec.stages.generic_source import open_original
from edgec.standins import Requirements, find_standin
from edgec.verification.golden_tensors import read_golden_tensors
from generic_models import plan, report, run_stages, write_recipe

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

MODELS = ("bert", "vit", "resnet", "whisper")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the results of stages; each model is imported once."""
    return tmp_path_factory.mktemp("generic")


def build(place: Path, kind: str, target: str, scheme: str) -> tuple[Any, dict[str, Path]]:
    folder = place / kind
    folder.mkdir(exist_ok=True)
    built = plan(
        write_recipe(folder, kind), target, place / "cache", f"quantization.scheme={scheme}"
    )
    return built, run_stages(built, folder)


@pytest.mark.parametrize("scheme", ["q0f32", "q4f32_1"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_cpu_library_computes_what_torch_does(place: Path, kind: str, scheme: str) -> None:
    _, outputs = build(place, kind, "x86-64-v3", scheme)
    found = report(outputs)
    assert found["verification"]["ran"]
    batches = {shapes[name][0] for shapes in found["calls"] for name in shapes}
    assert batches == {1, 3}
    (errors,) = found["outputs"].values()
    # Stored in tiles, activations are rounded: torch with the same rounding is the measure.
    rounding = errors.get("activations", 0.0)
    assert (rounding > 0) == (scheme == "q4f32_1")
    assert rounding < 0.05
    assert errors["compiler"] <= 1e-4 + 3 * rounding
    if scheme == "q0f32":
        assert errors["quantizer"] == 0.0
        assert errors["total"] <= 1e-4
    else:
        # Four bits are lossy, and only where there are matrices to quantize.
        assert 1e-3 < errors["quantizer"] < 0.5
        assert errors["total"] == pytest.approx(errors["quantizer"], abs=1e-3 + 3 * rounding)


@pytest.mark.parametrize("target", ["android-adreno", "webgpu"])
def test_an_embedding_model_on_gpus(place: Path, target: str) -> None:
    _, outputs = build(place, "bert", target, "q4f16_1")
    found = report(outputs)
    assert found["verification"]["ran"]
    assert found["verification"]["standin"] in ("emulator", "wgpu")
    assert found["outputs"]["last_hidden_state"]["compiler"] <= 5e-3
    kernels = found["kernels"]
    assert not kernels["unchecked"]
    assert len(kernels["checked"]) > 10
    assert max(item["max_error"] for item in kernels["checked"].values()) <= 4e-3


def test_the_contract_of_embedding_models(place: Path) -> None:
    built, outputs = build(place, "bert", "x86-64-v3", "q0f32")
    interface = read_interface(outputs["checkpoint"] / "edgec-model.json")
    assert interface.function == "prefill"
    assert [(item.dtype, item.shape) for item in interface.inputs] == [
        ("int32", ("batch", "length")),
        ("int32", ("batch", "length")),
    ]
    engine = find_standin("native").open_engine(
        outputs["compile"] / "model.so",
        outputs["pack"],
        Requirements(built.target.architecture, tuple(built.target.cpu_features)),
    )
    metadata = engine.metadata
    assert metadata["model_task"] == "embedding"
    assert metadata["embedding_metadata"] == {
        "model_type": "bert",
        "pooling_strategy": "mean",
        "normalize": True,
    }
    assert metadata["kv_state_kind"] == NO_CACHE
    assert metadata["prefill_chunk_size"] == metadata["context_window_size"] == 32
    assert metadata["max_batch_size"] == 4

    # Not the sizes of the verification: the largest ones, and padding in the middle of a batch.
    ids = np.arange(4 * 32, dtype=np.int32).reshape(4, 32)
    mask = (np.arange(32) < np.array([[32], [1], [17], [5]])).astype(np.int32)
    (states,) = engine.run("prefill", ids, mask)
    (verify,) = (spec for spec in built.stages if spec.name == "verify")
    (wanted,) = open_original(verify.local, verify.inputs).model.run([ids, mask])
    assert states.shape == (4, 32, 64)
    assert np.abs(states - wanted).max() <= 1e-4 * np.abs(wanted).max()


def test_golden_outputs_are_those_of_the_library(place: Path) -> None:
    built, outputs = build(place, "resnet", "x86-64-v3", "q0f32")
    golden = read_golden_tensors(outputs["verify"] / "golden.safetensors")
    engine = find_standin("native").open_engine(
        outputs["compile"] / "model.so",
        outputs["pack"],
        Requirements(built.target.architecture, tuple(built.target.cpu_features)),
    )
    (logits,) = engine.run("main", *golden.inputs.values())
    np.testing.assert_array_equal(logits, golden.artifact["logits"])
    assert np.abs(logits - golden.reference["logits"]).max() <= 1e-4 * np.abs(logits).max()
