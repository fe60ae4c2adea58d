"""Generic artifacts at run time: what they take, and what commands for text say of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from artifact_fakes import RECIPE, make_artifact
from cli_calls import call

from edgec.artifacts.artifact import open_artifact
from edgec.artifacts.interface import INTERFACE, Embedding, ModelInterface, TensorInterface
from edgec.errors import CheckpointError, UsageError
from edgec.packaging.model import read_model
from edgec.runtime import tensor_model
from edgec.runtime.embedding import embed
from edgec.runtime.session import open_session
from edgec.runtime.tensor_model import TensorModel, open_model
from edgec.verification.repeat import repeat_reference

if TYPE_CHECKING:
    from edgec.artifacts.artifact import Artifact

INPUTS = (
    TensorInterface("ids", ("batch", "length"), "int32"),
    TensorInterface("mask", ("batch", "length"), "int32"),
    TensorInterface("scale", (), "float32"),
)
PLAIN = ModelInterface(
    "main", INPUTS, (TensorInterface("sum", ("batch",), "float32"),), {"batch": 3, "length": 5}
)
TEXT = ModelInterface(
    "prefill",
    INPUTS[:2],
    (TensorInterface("states", ("batch", "length", 2), "float32"),),
    {"batch": 2, "length": 6},
    Embedding("mean", normalize=True),
)


class Library:
    """Computes what the interfaces above say."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def run(self, name: str, *given: Any) -> tuple[Any, ...]:
        self.calls.append((name, *given))
        ids, mask = given[0].astype(np.float32), given[1]
        if name == "prefill":
            return (np.stack([ids + 1, ids * 2 - 3], axis=2),)
        return ((ids * mask).sum(axis=1) * given[2],)


def artifact(folder: Path, interface: ModelInterface, **changes: Any) -> Artifact:
    recipe = {**RECIPE, "kind": "generic"}
    files = {INTERFACE: json.dumps(interface.to_json()).encode()}
    return make_artifact(folder, files=files, recipe=recipe, **changes)


def loaded(folder: Path, interface: ModelInterface) -> TensorModel:
    engine: Any = Library()
    return TensorModel(artifact(folder, interface), interface, engine, 1, 0.0)


def good() -> dict[str, Any]:
    ids = np.array([[1, 2, 3], [4, 5, 6]])
    return {"ids": ids, "mask": np.array([[1, 1, 0], [1, 1, 1]]), "scale": np.float64(2)}


def test_a_call(tmp_path: Path) -> None:
    model = loaded(tmp_path, PLAIN)
    found = model.run(good())
    np.testing.assert_array_equal(found["sum"], [6.0, 30.0])
    ((name, ids, mask, scale),) = model.engine.calls  # type: ignore[attr-defined]
    assert name == "main"
    assert (ids.dtype, mask.dtype, scale.dtype) == (np.int32, np.int32, np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": None}, "ids: the input is missing; give a tensor int32[batch, length]"),
        ({"idx": np.zeros(1)}, "idx: the model has no input of this name; did you mean ids?"),
        ({"ids": np.zeros(3, int)}, "a tensor int64[3] is given, and int32[batch, length]"),
        ({"ids": np.zeros((2, 3))}, "a tensor float64[2, 3] is given"),
        ({"ids": np.zeros((4, 3), int)}, "ids: batch is 4, and the artifact was built for 1 to 3"),
        ({"ids": np.zeros((0, 3), int)}, "batch is 0"),
        ({"mask": np.zeros((1, 3), int)}, "mask: batch is 1 here and 2 in another input"),
        ({"ids": np.full((2, 3), 1 << 40)}, "ids: it has numbers that int32 can't hold"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    given = {name: item for name, item in {**good(), **changes}.items() if item is not None}
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, PLAIN).run(given)
    assert message in str(caught.value)


def test_texts_go_in_batches_and_padding_counts_for_nothing(tmp_path: Path) -> None:
    model = loaded(tmp_path, TEXT)
    together = embed(model, ["hi", "hi hi hi", "h"])
    alone = [embed(model, [text])[0] for text in ("hi", "hi hi hi", "h")]
    assert together.shape == (3, 2)
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, rtol=1e-6)
    sizes = [given[1].shape for given in model.engine.calls]  # type: ignore[attr-defined]
    assert sizes[0][0] == 2
    assert sizes[1][0] == 1


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    model = loaded(tmp_path, TEXT)
    embed(model, ["hi " * 50])
    assert model.engine.calls[0][1].shape == (1, 6)  # type: ignore[attr-defined]


def test_tensors_are_no_texts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a function of tensors, not of texts"):
        embed(loaded(tmp_path, PLAIN), ["hi"])


def test_an_embedding_model_without_a_tokenizer(tmp_path: Path) -> None:
    model = loaded(tmp_path, TEXT)
    (tmp_path / "model" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="has no tokenizer"):
        embed(model, ["hi"])


def test_a_decoder_is_no_function_of_tensors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a decoder of text"):
        open_model(make_artifact(tmp_path))


def test_what_is_for_text_refuses_it(tmp_path: Path) -> None:
    found = artifact(tmp_path, PLAIN)
    assert found.interface == PLAIN
    with pytest.raises(UsageError, match="a generic model, which writes no text"):
        open_session(found)
    with pytest.raises(UsageError, match="the engines in these packages run models that chat"):
        read_model(found, url=None, bundled=True)
    with pytest.raises(UsageError, match="compared with its original when it is built"):
        repeat_reference(found, "", progress=None)  # type: ignore[arg-type]


@pytest.fixture
def fake_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_model, "load_engine", lambda *_args, **_kw: Library())
    monkeypatch.setattr(tensor_model, "check_runtime", lambda *_args: None)


@pytest.mark.usefixtures("fake_library")
def test_run_on_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    artifact(tmp_path / "a", PLAIN)
    for name, item in good().items():
        np.save(f"{name}.npy", item)
    inputs = [part for name in good() for part in ("--input", f"{name}={name}.npy")]
    called = call("run", "./a", *inputs, "--output", "out.npz", "--json")
    assert called.code == 0, called.err
    assert called.data["outputs"]["sum"]["shape"] == [2]
    with np.load("out.npz") as written:
        np.testing.assert_array_equal(written["sum"], [6.0, 30.0])
    table = call("run", "./a", *inputs)
    assert "sum" in table.out
    assert "18" in table.out  # the mean


@pytest.mark.usefixtures("fake_library")
def test_run_on_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    artifact(tmp_path / "a", TEXT)
    called = call("run", "./a", "hi", "--json")
    assert called.code == 0, called.err
    values = called.data["outputs"]["embedding"]["values"]
    assert np.linalg.norm(values) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give each input with --input NAME=FILE.npy"),
        (("--chat",), "--chat is for models that write text"),
        (("hi", "--temperature", "0"), "--temperature is for models that write text"),
        (("--input", "ids"), "--input ids: this is no input"),
        (("--input", "ids=missing.npy"), "missing.npy: the file can't be read"),
    ],
)
def test_run_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    artifact(tmp_path / "a", PLAIN)
    called = call("run", "./a", *arguments)
    assert called.code == 2
    assert message in called.err


def test_arrays_are_for_generic_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_artifact(tmp_path / "a")
    called = call("run", "./a", "--input", "x=y.npy")
    assert called.code == 2
    assert "are for generic models, and this one continues text" in called.err


def test_bench_refuses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    artifact(tmp_path / "a", PLAIN)
    called = call("bench", "./a")
    assert called.code == 2
    assert "which writes no text" in called.err


def test_a_folder_is_opened(tmp_path: Path) -> None:
    artifact(tmp_path / "a", TEXT)
    assert open_artifact(Path(tmp_path / "a")).interface == TEXT
