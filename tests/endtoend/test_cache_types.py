"""The shipped model with keys and values in 8 bits, from recipe to text, as a user would do it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from edgec.artifacts.artifact import open_artifact
from edgec.runtime.session import open_session
from endtoend.command import edgec

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.artifacts.artifact import Artifact

# Tests of numerics and of each part show the same on every change.
pytestmark = [pytest.mark.slow, pytest.mark.nightly]

# Unquantized, so that nothing is rounded but keys and values.
SETTINGS = {
    "quantization.scheme": "q0f32",
    "context.kv_cache_dtype": "int8",
    "quality.tokens": 512,
    "quality.window": 256,
}
LAYERS, HEADS, WIDTH, LENGTH = 6, 2, 64, 1024


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    options = [part for name, value in SETTINGS.items() for part in ("-s", f"{name}={value}")]
    edgec(folder, "build", "tinypy", *options)
    return folder


@pytest.fixture(scope="module")
def artifact(work: Path) -> Artifact:
    (manifest,) = (work / "artifacts").rglob("manifest.json")
    return open_artifact(manifest.parent)


def test_it_loses_what_pytorch_says_and_does_round(artifact: Artifact) -> None:
    report = artifact.report
    assert report["verification"]["kv_cache_dtype"] == "int8"
    loss, found = report["kv_cache"], report["compiler"]
    assert "rounding" not in report
    assert "activations" not in report
    assert loss["max_logit_error"] > 1e-3
    # Held as it is computed, it would be a hundredth of this.
    assert found["max_logit_error"] > loss["max_logit_error"] / 3
    assert loss["kl"] / 2.5 < found["kl"] < 2.5 * loss["kl"]
    assert loss["kl"] < 1e-4
    assert report["total"]["perplexity_ratio"] == pytest.approx(1, abs=5e-3)
    for way in ("prefill", "chunked_prefill", "decode", "batch"):
        assert report["paths"][way] <= found["tolerance"], way


def test_its_memory_is_that_of_bytes_and_steps(artifact: Artifact) -> None:
    memory = artifact.manifest["memory"]
    assert memory["kv_cache_dtype"] == "int8"
    assert memory["kv_cache_bytes"] == 2 * LAYERS * HEADS * (WIDTH + 4) * LENGTH
    session = open_session(artifact)
    assert session.engine.metadata["kv_cache"]["dtype"] == "int8"
    assert session.kv_bytes_per_token == 2 * LAYERS * HEADS * (WIDTH + 4)


def test_it_writes_and_can_be_checked_again(work: Path, artifact: Artifact) -> None:
    asked = ("run", "tinypy", "def main():", "--max-tokens", "24", "--temperature", "0", "--json")
    written = json.loads(edgec(work, *asked))
    assert len(written["token_ids"]) == 24
    assert written["token_ids"] == json.loads(edgec(work, *asked))["token_ids"]
    checked = json.loads(edgec(work, "verify", str(artifact.folder), "--reference", "--json"))
    repeated, built = checked["reference"], artifact.report
    for section in ("compiler", "kv_cache"):
        assert repeated[section]["kl"] == pytest.approx(built[section]["kl"], rel=0.1)
    assert repeated["compiler"]["tolerance"] == pytest.approx(
        built["compiler"]["tolerance"], rel=0.1
    )
    lines = edgec(work, "inspect", str(artifact.folder))
    assert "in int8, workspace" in lines
    assert "KV cache" in lines
