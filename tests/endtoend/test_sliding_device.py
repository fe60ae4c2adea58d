"""A sliding window on a phone's GPU: built, run past its window on the stand-in, verified again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgec.artifacts.artifact import open_artifact
from edgec.models.window import SlidingWindow
from edgec.verification import repeat
from edgec.verification.original import find_original, references
from edgec.verification.steps import calls
from endtoend.command import edgec
from endtoend.small_model import SMALL, write_small_model
from standin_tools import needs

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.artifacts.artifact import Artifact

pytestmark = [
    pytest.mark.slow,
    pytest.mark.nightly,
    *(needs(name) for name in ("clang++", "cxx", "lld")),
]

TARGET = "android-mali"
WINDOW = SlidingWindow(24, 3)
CHUNK = 16
SETTINGS = {
    # So that logits are compared to 1e-3.
    "quantization.scheme": "q4f32_1",
    "context.sliding_window": WINDOW.size,
    "context.attention_sinks": WINDOW.sinks,
    "context.prefill_chunk": CHUNK,
    "quality.tokens": 96,
    "quality.window": 96,
    # On so few tokens, figures of quality say little.
    "quality.max_kl": 1,
    "quality.min_top1": 0.5,
    "quality.max_perplexity_ratio": 2,
}
TOKENS = 80


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    work = tmp_path_factory.mktemp("work")
    options = [part for name, value in SETTINGS.items() for part in ("-s", f"{name}={value}")]
    write_small_model(work)
    edgec(work, "build", f"{SMALL}.yaml", "--target", TARGET, "--out", str(work / "out"), *options)
    return open_artifact(work / "out" / SMALL / TARGET)


def test_its_kernels_are_checked_alone_and_its_text_is_longer_than_the_window(
    artifact: Artifact,
) -> None:
    report = artifact.report
    checked = report["kernels"]["checked"]
    for name in ("batch_decode_paged_kv", "batch_prefill_paged_kv"):
        assert checked[f"{name}_sliding_window"]["calls"] > 3
        assert name not in checked, "a cache whose windows slide has kernels of its own"
    assert report["text"]["artifact_tokens"] > 3 * WINDOW.size
    assert report["compiler"]["max_logit_error"] <= report["compiler"]["tolerance"]
    paths = report["paths"]
    for way in ("all_logits", "prefill", "chunked_prefill", "decode", "batch"):
        assert paths[way] <= paths["tolerance"]


def test_engines_are_told(artifact: Artifact) -> None:
    names = ("context_window_size", "sliding_window_size", "attention_sink_size")
    config = artifact.chat_config
    assert [config[name] for name in names] == [-1, WINDOW.size, WINDOW.sinks]
    # The runtime of these devices takes one window at a time.
    assert config["model_config"]["max_batch_size"] == 1


def test_decoding_past_the_window_is_what_the_reference_says(artifact: Artifact) -> None:
    original = find_original(artifact, str(artifact.folder.parents[2] / "model"))
    _, shipped = references(artifact, original)
    tokens = np.random.default_rng(0).integers(1, 4000, TOKENS).tolist()
    parts = [*calls("prefill", 40, CHUNK), *[1] * (TOKENS - 40)]
    wanted = shipped.logits(tokens, parts)
    engine = repeat._built(artifact, None).open(TOKENS, sequences=1)
    assert engine.capacity.tokens < TOKENS
    engine.add(0)
    steps = [engine.prefill(0, tokens[:40])]
    steps += [engine.decode(0, token) for token in tokens[40:]]
    limit = artifact.report["compiler"]["tolerance"]
    assert np.abs(np.stack(steps) - wanted[39:]).max() <= limit
    assert np.abs(shipped.logits(tokens)[-1] - wanted[-1]).max() > 100 * limit


def test_it_is_verified_again(artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    found = json.loads(edgec(tmp_path, "verify", str(artifact.folder), "--json"))
    golden = found["golden"]
    assert max(golden["artifact"].values()) <= golden["tolerance"] / 10
    assert found["kernels"]["checked"].keys() == artifact.report["kernels"]["checked"].keys()
