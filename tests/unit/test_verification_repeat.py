"""The checks of a finished artifact, on a numpy model behind the engine's interface."""

from __future__ import annotations

import hashlib
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from artifact_fakes import RECIPE, make_artifact
from verification_fakes import FakeEngine, FakeModel, ForgetsAtChunks, random_windows

from edgec.errors import CheckpointError, ToolchainError, UsageError, VerificationError
from edgec.models.parameters import Parameter, Source
from edgec.progress import Silent
from edgec.runtime import compatibility
from edgec.standins import Requirements
from edgec.verification import built, original, repeat
from edgec.verification.golden import make_golden
from edgec.verification.golden_file import write_golden
from edgec.verification.original import find_original
from edgec.verification.repeat import (
    Files,
    repeat_files,
    repeat_golden,
    repeat_kernels,
    repeat_reference,
    shows_kernels,
)

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.artifacts.artifact import Artifact

TOKENS = random_windows(40)[0]


class Device:
    """A stand-in whose engine the test chooses."""

    WEIGHTS_PER_SECOND: float | None = None

    def __init__(self) -> None:
        self.engine: Any = FakeEngine()
        self.asked: list[str] = []
        self.opened: list[Any] = []
        self.checked: list[Any] = []

    def find(self, name: str) -> Device:
        self.asked.append(name)
        return self

    def open_engine(self, *arguments: Any, capacity: Any, checked: bool, observer: Any) -> Any:
        self.opened.append((arguments, capacity))
        self.checked.append((checked, observer))
        self.engine.capacity = capacity
        return self.engine


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    found = Device()
    monkeypatch.setattr(built, "find_standin", found.find)
    monkeypatch.setattr(compatibility.metadata, "version", lambda _name: "0.27.0.post1")
    return found


def golden_artifact(folder: Path, *, kernels: bool = False, **changes: Any) -> Artifact:
    """An artifact with golden outputs of the numpy model, and maybe with kernels.json."""
    golden = folder.with_name("golden.safetensors")
    write_golden(golden, make_golden(FakeEngine(), TOKENS, "float32", FakeModel()))
    files = {"golden.safetensors": golden.read_bytes()}
    if kernels:
        files["kernels.json"] = b"{}"
    return make_artifact(folder, files=files, **changes)


# Files


def test_whole_files_are_counted(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "a")
    size = sum(path.stat().st_size for path in artifact.folder.rglob("*") if path.is_file())
    size -= (artifact.folder / "manifest.json").stat().st_size
    assert repeat_files(artifact) == Files(4, size)


@pytest.mark.parametrize("name", ["lib/model.so", "model/tokenizer.json", "report.json"])
def test_a_changed_byte_is_found_in_any_file(tmp_path: Path, name: str) -> None:
    artifact = make_artifact(tmp_path / "a")
    path = artifact.folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerificationError, match=f"{path.name}: the file's bytes differ"):
        repeat_files(artifact)


def test_files_that_come_and_go_are_found(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "a")
    (artifact.folder / "extra").touch()
    with pytest.raises(VerificationError, match="extra: the file is not in the manifest"):
        repeat_files(artifact)
    (artifact.folder / "extra").unlink()
    artifact.library.unlink()
    with pytest.raises(VerificationError, match="the file is missing"):
        repeat_files(artifact)


# Golden outputs


def test_golden_outputs_are_run_on_the_stand_in(tmp_path: Path, device: Device) -> None:
    artifact = golden_artifact(tmp_path / "a")
    figures = repeat_golden(artifact)
    assert figures is not None
    assert figures["positions"] == len(TOKENS)
    assert max(figures["artifact"].values()) <= figures["tolerance"]
    (arguments, capacity) = device.opened[0]
    assert arguments == (artifact.library, artifact.model, Requirements("x86_64", ("avx2",)))
    assert (capacity.sequences, capacity.tokens) == (1, len(TOKENS))
    assert device.asked == ["native"]
    assert device.checked == [(False, None)]


def test_another_stand_in_may_be_named(tmp_path: Path, device: Device) -> None:
    artifact = golden_artifact(tmp_path / "a", standin="emulator", standin_cpu="max")
    artifact.manifest["limits"] = {"max_threads": 64}
    assert repeat_golden(artifact, "pocl") is not None
    assert device.asked == ["pocl"]
    wanted = Requirements("x86_64", ("avx2",), "max", {"max_threads": 64})
    assert device.opened[0][0][2] == wanted


def test_an_unknown_stand_in_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compatibility.metadata, "version", lambda _name: "0.27.0.post1")
    with pytest.raises(UsageError, match=r"no stand-in 'emulater'; did you mean emulator\?"):
        repeat_golden(golden_artifact(tmp_path / "a"), "emulater")


def test_an_engine_that_computes_something_else_is_found(tmp_path: Path, device: Device) -> None:
    device.engine = ForgetsAtChunks()
    with pytest.raises(VerificationError, match=r"\(chunked_prefill\) differ from its own golden"):
        repeat_golden(golden_artifact(tmp_path / "a"))


def test_an_artifact_that_was_never_run_has_none(tmp_path: Path, device: Device) -> None:
    assert repeat_golden(make_artifact(tmp_path / "a")) is None
    assert not device.opened


def test_another_runtime_is_refused(tmp_path: Path, device: Device) -> None:
    with pytest.raises(ToolchainError, match=r"0\.30"):
        repeat_golden(golden_artifact(tmp_path / "a", runtime__tvm="0.30.0"))
    assert not device.opened


# Kernels


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the check of kernels was asked; it opens an engine and finds nothing wrong."""
    asked: list[Any] = []

    def check(
        open_engine: Any, references: Any, kernels: Any, tokens: Any, **_: Any
    ) -> dict[str, Any]:
        open_engine("observer")
        asked.append((references, list(kernels), list(tokens)))
        return {"checked": {}}

    monkeypatch.setattr(built, "check_kernels", check)
    monkeypatch.setattr(built, "References", lambda path: path)
    return asked


def test_kernels_are_checked_on_the_golden_inputs(
    tmp_path: Path, device: Device, checked: list[Any]
) -> None:
    device.WEIGHTS_PER_SECOND = 1e8
    artifact = golden_artifact(
        tmp_path / "a", kernels=True, kernels__by_name={"take": "rule", "add": "rule"}
    )
    assert repeat_kernels(artifact, Silent()) == {"checked": {}}
    assert checked == [(artifact.folder / "kernels.json", ["add", "take"], TOKENS)]
    assert device.checked == [(True, "observer")]
    assert device.opened[0][1].sequences == 2  # forks and batches need several


def test_kernels_of_an_artifact_that_was_never_run_get_ids_by_chance(
    tmp_path: Path, device: Device, checked: list[Any]
) -> None:
    device.WEIGHTS_PER_SECOND = 1e8
    artifact = make_artifact(tmp_path / "a", files={"kernels.json": b"{}"})
    assert repeat_kernels(artifact, Silent(), "pocl") is not None
    ((_, _, tokens),) = checked
    assert len(tokens) == 64
    assert len(set(tokens)) > 30
    assert all(0 <= token < 512 for token in tokens)
    assert set(device.asked) == {"pocl"}


@pytest.mark.parametrize(
    ("rate", "kernels", "shown"), [(1e8, True, True), (None, True, False), (1e8, False, False)]
)
def test_kernels_are_shown_by_emulated_devices(
    tmp_path: Path, device: Device, rate: float | None, kernels: bool, shown: bool
) -> None:
    device.WEIGHTS_PER_SECOND = rate
    assert shows_kernels(golden_artifact(tmp_path / "a", kernels=kernels), "this") is shown
    assert set(device.asked) <= {"this"}


def test_a_device_itself_shows_none(tmp_path: Path, device: Device, checked: list[Any]) -> None:
    with pytest.raises(UsageError, match="kernels can be looked at on an emulated device only"):
        repeat_kernels(golden_artifact(tmp_path / "a", kernels=True), Silent(), "gpu")
    assert not checked


# The original model

WEIGHT = Parameter("w.weight", (4, 32), "linear", (Source("w.weight", (4, 32)),))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model folder with one tensor."""
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "toy"}')
    header = json.dumps(
        {"w.weight": {"dtype": "F32", "shape": [4, 32], "data_offsets": [0, 512]}}
    ).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(512)
    (folder / "model.safetensors").write_bytes(weights)
    monkeypatch.setattr(original, "model_parameters", lambda _config: [WEIGHT])
    return folder


def digests(folder: Path) -> dict[str, str]:
    return {
        f"model.files.{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
    }


def known_recipe(monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
    loaded = SimpleNamespace(recipe=SimpleNamespace(name="toy"), base=base)
    monkeypatch.setattr(original, "find_recipe", lambda _name: base / "toy.yaml")
    monkeypatch.setattr(original, "load_recipe", lambda _path: loaded)


def test_the_model_of_a_known_recipe_is_found(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_recipe(monkeypatch, tmp_path)
    artifact = make_artifact(tmp_path / "a", model__inputs=digests(model))
    found = find_original(artifact)
    assert found.base == tmp_path
    assert found.checkpoint.names() == ["w.weight"]
    assert found.recipe.quantization.scheme == "q4f32_1"


def test_the_model_of_an_unknown_recipe_has_to_be_named(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    artifact = make_artifact(tmp_path / "a", model__inputs=digests(model))
    with pytest.raises(UsageError, match="name the model with --reference MODEL_SOURCE"):
        find_original(artifact)
    assert find_original(artifact, "toy").checkpoint.names() == ["w.weight"]
    with pytest.raises(CheckpointError, match="no such model folder"):
        find_original(artifact, "toys")


def test_another_model_is_refused(tmp_path: Path, model: Path) -> None:
    artifact = make_artifact(tmp_path / "a", model__inputs=digests(model))
    (model / "config.json").write_text('{"model_type": "toy", "more": 1}')
    with pytest.raises(VerificationError, match=r"its config\.json has other bytes"):
        find_original(artifact, str(model))


def test_a_recipe_that_cannot_be_read_is_a_clear_error(tmp_path: Path, model: Path) -> None:
    artifact = make_artifact(tmp_path / "a", recipe={**RECIPE, "quantization": {"scheme": "q9"}})
    with pytest.raises(VerificationError, match=r"recipe in the manifest .* quantization\.scheme"):
        find_original(artifact, str(model))


# The whole comparison


def _compared(
    monkeypatch: pytest.MonkeyPatch, first: FakeModel, shipped: FakeModel, **quality: Any
) -> None:
    """Put numpy models in the place of the references."""
    limits: dict[str, Any] = dict.fromkeys(("max_kl", "min_top1", "max_perplexity_ratio"))
    recipe = SimpleNamespace(
        quality=SimpleNamespace(text=None, **{**limits, **quality}),
        quantization=SimpleNamespace(scheme="q4f32_1"),
    )
    found = SimpleNamespace(recipe=recipe, base=None)
    monkeypatch.setattr(repeat, "find_original", lambda _artifact, _source: found)
    monkeypatch.setattr(repeat, "references", lambda _artifact, _original: (first, shipped))


def test_the_golden_inputs_serve_where_there_is_no_text(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    _compared(monkeypatch, FakeModel(noise=0.3), FakeModel(), max_kl=10.0)
    report = repeat_reference(golden_artifact(tmp_path / "a"), "", Silent())
    assert report["text"]["tokens"] == len(TOKENS)
    assert report["text"]["same"] is False
    assert report["total"]["kl"] > report["compiler"]["kl"] >= 0
    assert device.opened[0][1].sequences == 2  # what the recipe allows


def test_an_emulated_device_runs_a_part_of_the_text(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    _compared(monkeypatch, FakeModel(), FakeModel())
    device.WEIGHTS_PER_SECOND = 600.0  # with 1000 parameters 18 tokens in 30 seconds
    text = repeat_reference(golden_artifact(tmp_path / "a"), "", Silent())["text"]
    assert (text["artifact_tokens"], text["tokens"]) == (18, len(TOKENS))


def test_a_defect_of_the_compiler_is_found(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    _compared(monkeypatch, FakeModel(), FakeModel(seed=1))
    with pytest.raises(VerificationError, match=r"more than the .* that rounding explains"):
        repeat_reference(golden_artifact(tmp_path / "a"), "", Silent())


def test_what_kernels_round_is_measured_again(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = FakeModel()
    shipped.roundings = {"kv_cache": FakeModel(noise=0.2)}
    _compared(monkeypatch, FakeModel(), shipped)
    report = repeat_reference(golden_artifact(tmp_path / "a"), "", Silent())
    limit = 1e-3 + 3 * report["kv_cache"]["max_logit_error"]
    assert report["compiler"]["tolerance"] == pytest.approx(limit, rel=1e-5)


def test_the_limits_of_the_recipe_hold_again(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    _compared(monkeypatch, FakeModel(noise=1.0), FakeModel(), max_kl=1e-9)
    with pytest.raises(VerificationError, match=r"above quality\.max_kl"):
        repeat_reference(golden_artifact(tmp_path / "a"), "", Silent())


def test_without_text_and_golden_inputs_there_is_nothing_to_compare(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    _compared(monkeypatch, FakeModel(), FakeModel())
    with pytest.raises(UsageError, match="no text to compare on"):
        repeat_reference(make_artifact(tmp_path / "a"), "", Silent())


def test_the_text_of_the_build_is_recognized(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    _compared(monkeypatch, FakeModel(), FakeModel())
    artifact = golden_artifact(tmp_path / "a")
    digest = repeat_reference(artifact, "", Silent())["text"]["digest"]
    report = json.dumps({"text": {"digest": digest}}).encode()
    again = make_artifact(
        tmp_path / "b",
        files={
            "report.json": report,
            "golden.safetensors": artifact.golden.read_bytes(),
        },
    )
    assert repeat_reference(again, "", Silent())["text"]["same"] is True


def test_numbers_are_finite(tmp_path: Path, device: Device) -> None:
    figures = repeat_golden(golden_artifact(tmp_path / "a"))
    assert figures is not None
    assert np.isfinite([*figures["artifact"].values(), *figures["reference"].values()]).all()
