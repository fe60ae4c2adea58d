"""Opening an artifact to run it: what is checked before anything is loaded."""

from __future__ import annotations

import os
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest
from artifact_fakes import CONTEXT, ScriptedEngine, chat_config, make_artifact

from edgec.errors import (
    CheckpointError,
    EdgecError,
    ToolchainError,
    UsageError,
    VerificationError,
)
from edgec.models.window import SlidingWindow
from edgec.runtime import compatibility, session
from edgec.runtime.session import open_session

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.artifacts.artifact import Artifact
    from edgec.runtime.forward import Capacity

TVM = "0.27.0.post1"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The arguments of every load; nothing is loaded."""
    calls: list[Any] = []

    def load_engine(*args: Any, capacity: Capacity) -> ScriptedEngine:
        calls.append((args, capacity))
        engine = ScriptedEngine()
        engine.capacity = capacity
        return engine

    monkeypatch.setattr(session, "load_engine", load_engine)
    monkeypatch.setattr(compatibility.metadata, "version", lambda _name: TVM)
    monkeypatch.setenv("TVM_NUM_THREADS", "3")
    return calls


def test_an_artifact_is_loaded_for_one_sequence(tmp_path: Path, loaded: list[Any]) -> None:
    artifact = make_artifact(tmp_path / "a")
    opened = open_session(artifact)
    (library, model, features, architecture), capacity = loaded[0]
    assert library == tmp_path / "a/lib/model.so"
    assert model == tmp_path / "a/model"
    assert (features, architecture) == (["avx2"], "x86_64")
    assert (capacity.sequences, capacity.tokens, capacity.prefill_chunk) == (1, CONTEXT, 16)
    assert (opened.context, opened.kv_cache_bytes, opened.vocab_size) == (CONTEXT, 4096, 512)
    assert opened.tokenizer.encode("hi")
    assert opened.load_seconds >= 0


def test_a_smaller_context_takes_less_memory(tmp_path: Path, loaded: list[Any]) -> None:
    opened = open_session(make_artifact(tmp_path / "a"), context=10)
    # 64 tokens in 4 pages take 4096 bytes; 10 tokens need one page.
    assert (opened.context, opened.kv_cache_bytes) == (10, 1024)
    assert loaded[0][1].prefill_chunk == 10


def sliding(folder: Path) -> Artifact:
    """An artifact with a window of 32 tokens, whose cache takes two pages more."""
    config = chat_config(context_window_size=-1, sliding_window_size=32, attention_sink_size=4)
    return make_artifact(folder, config=config, memory__sliding_window=32)


@pytest.mark.parametrize("context", [None, 32])
def test_a_window_is_the_context(tmp_path: Path, loaded: list[Any], context: int | None) -> None:
    opened = open_session(sliding(tmp_path / "a"), context=context)
    assert opened.window == SlidingWindow(32, 4)
    assert (loaded[0][1].tokens, loaded[0][1].prefill_chunk) == (32, 16)
    assert (opened.context, opened.kv_cache_bytes, opened.kv_bytes_per_token) == (32, 4096, 64)


def test_a_window_is_as_it_was_built(tmp_path: Path, loaded: list[Any]) -> None:
    with pytest.raises(UsageError, match=r"a window of 32 tokens .* leave it out, or build with"):
        open_session(sliding(tmp_path / "a"), context=16)
    assert not loaded


@pytest.mark.parametrize("context", [0, CONTEXT + 1])
def test_a_context_out_of_range_is_refused(tmp_path: Path, loaded: list[Any], context: int) -> None:
    with pytest.raises(UsageError, match=f"out of range.*built for {CONTEXT}"):
        open_session(make_artifact(tmp_path / "a"), context=context)
    assert not loaded


@pytest.mark.parametrize(("asked", "threads"), [(None, 3), (5, 5)])
def test_threads_are_set_before_the_library_is_loaded(
    tmp_path: Path, loaded: list[Any], asked: int | None, threads: int
) -> None:
    assert open_session(make_artifact(tmp_path / "a"), threads=asked).threads == threads
    assert os.environ["TVM_NUM_THREADS"] == str(threads)


@pytest.mark.parametrize("value", ["two", "-1", "0", "1.5"])
def test_threads_in_the_environment_that_are_no_number(
    tmp_path: Path, loaded: list[Any], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TVM_NUM_THREADS", value)
    with pytest.raises(UsageError, match=f"TVM_NUM_THREADS: '{value}' is not"):
        open_session(make_artifact(tmp_path / "a"))
    assert not loaded
    assert open_session(make_artifact(tmp_path / "b"), threads=2).threads == 2


def test_another_runtime_is_refused_with_both_versions(tmp_path: Path, loaded: list[Any]) -> None:
    artifact = make_artifact(tmp_path / "a", runtime__tvm="0.30.0")
    with pytest.raises(ToolchainError, match=rf"by apache-tvm 0\.30\.0, and {TVM} is installed"):
        open_session(artifact)
    assert not loaded


def test_a_missing_runtime_is_named(
    tmp_path: Path, loaded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(compatibility.metadata, "version", version)
    with pytest.raises(ToolchainError, match="none is installed; run: pip install apache-tvm=="):
        open_session(make_artifact(tmp_path / "a"))
    assert not loaded


def test_a_file_cut_short_is_found_before_it_is_loaded(tmp_path: Path, loaded: list[Any]) -> None:
    artifact = make_artifact(tmp_path / "a")
    artifact.library.write_bytes(b"not")
    with pytest.raises(VerificationError, match=r"model\.so: the file has 3 bytes"):
        open_session(artifact)
    assert not loaded


def test_a_damaged_library_is_not_loaded(tmp_path: Path, loaded: list[Any]) -> None:
    artifact = make_artifact(tmp_path / "a")
    artifact.library.write_bytes(b"not reaLLy")
    with pytest.raises(VerificationError, match=r"model\.so: the file's bytes differ"):
        open_session(artifact)
    assert not loaded


def test_a_library_that_the_manifest_does_not_list_is_not_loaded(
    tmp_path: Path, loaded: list[Any]
) -> None:
    artifact = make_artifact(tmp_path / "a", library="other.so")
    (tmp_path / "a/lib/other.so").write_bytes(b"evil")
    with pytest.raises(VerificationError, match=r"other\.so: the file's bytes differ"):
        open_session(artifact)
    assert not loaded


def test_a_missing_file_is_found(tmp_path: Path, loaded: list[Any]) -> None:
    artifact = make_artifact(tmp_path / "a")
    artifact.library.unlink()
    with pytest.raises(VerificationError, match=r"model\.so: the file is missing"):
        open_session(artifact)
    assert not loaded


@pytest.mark.parametrize("field", ["context_window_size", "prefill_chunk_size"])
@pytest.mark.parametrize("value", [None, 0, "many", True])
def test_a_damaged_chat_config_is_a_clear_error(
    tmp_path: Path, loaded: list[Any], field: str, value: object
) -> None:
    artifact = make_artifact(tmp_path / "a", config=chat_config(**{field: value}))
    with pytest.raises(CheckpointError, match=f"mlc-chat-config.json: {field} is"):
        open_session(artifact)
    assert not loaded


@pytest.mark.parametrize(
    "field",
    [
        "library",
        "runtime__tvm",
        "runtime__cpu_features",
        "memory__kv_cache_bytes",
        "kernels__sources",
    ],
)
def test_a_manifest_without_a_field_is_damaged(tmp_path: Path, field: str) -> None:
    with pytest.raises(EdgecError, match=field.replace("__", ".")) as caught:
        make_artifact(tmp_path / "a", **{field: None})
    assert caught.value.exit_code == 5


def test_a_manifest_with_a_damaged_file_entry(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"files\.x is missing or damaged"):
        make_artifact(tmp_path / "a", files__x={"bytes": "12"})
