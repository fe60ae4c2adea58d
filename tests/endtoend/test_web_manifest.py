"""The shipped model in the published WebLLM by its model manifest, and by functions' names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from edgec.artifacts.artifact import Artifact, open_artifact
from edgec.artifacts.web_program import MODEL_MANIFEST
from edgec.errors import VerificationError
from edgec.files import digest_json
from edgec.standins.webllm import Session
from standin_tools import needs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    *(needs(name) for name in ("web toolchain", "node", "chromium")),
]

PROMPT = "def add(left, right):\n    return"
TOKENS = 8
CHUNK = 256
# As many tokens as a chunk has; one stands before every prompt.
LONG = "x = 1\n" * 64
GREEDY = {"temperature": 0, "top_p": 1, "max_tokens": TOKENS}


def edgec(folder: Path, *args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "edgec", *args],
        cwd=folder,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("manifest")
    built = edgec(folder, "build", "tinypy", "-t", "webgpu", "--no-verify", "--out", "out")
    return open_artifact(folder / built.strip())


def said(session: Session, counted: int) -> list[tuple[int, ...]]:
    """What WebLLM answers to a short text, and to one whose second chunk is a single token.

    By the manifest that token goes through ``prefill``, and otherwise through ``decode``. Of the
    second text WebLLM counts ``counted`` tokens: by the manifest also the one before every prompt.
    """
    answers = []
    for prompt in (PROMPT, LONG):
        session.reset()
        answers.append(session.chat(prompt, **GREEDY))
    assert answers[-1].usage["prompt_tokens"] == counted
    assert not [text for text in session.messages if text.startswith("error")]
    return [tuple(answer.token_ids) for answer in answers]


def asked_for(session: Session) -> set[str]:
    return {path.rpartition("/")[2] for _, path, _ in session.requests}


def test_both_ways_give_the_same_tokens(artifact: Artifact) -> None:
    model = (artifact.library, artifact.model)
    with Session(*model, model_manifest=MODEL_MANIFEST) as session:
        by_manifest = said(session, CHUNK + 1)
        assert MODEL_MANIFEST in asked_for(session)
        # This way, texts without a template also begin with the tokens before every prompt.
        completed = session.complete(PROMPT, **GREEDY)
        assert completed.usage["prompt_tokens"] == len(completed.prompt_ids) + 1
        assert tuple(completed.token_ids) == by_manifest[0]
    assert [len(tokens) for tokens in by_manifest] == [TOKENS] * 2
    with Session(*model) as session:
        assert said(session, CHUNK) == by_manifest
        assert MODEL_MANIFEST not in asked_for(session)


def other_tasks(manifest: dict[str, Any]) -> None:
    """Tasks that aren't those of the digest."""
    manifest["tasks"]["chat.completions"]["output"] = "speech"


def other_interface(manifest: dict[str, Any]) -> None:
    """Tasks with their own digest, of which the library knows nothing."""
    manifest["tasks"]["embeddings"] = manifest["tasks"]["chat.completions"]
    manifest["interface_id"] = f"sha256:{digest_json({'tasks': manifest['tasks']})}"


def other_weights(manifest: dict[str, Any]) -> None:
    manifest["weights"]["parameter_schema_id"] = f"sha256:{'0' * 64}"


def other_key(manifest: dict[str, Any]) -> None:
    manifest["license"] = "none"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_tasks, f"{MODEL_MANIFEST}: interface_id does not match its tasks"),
        (other_interface, "model-package and compiled-program interface IDs differ"),
        (other_weights, "weight and compiled-program parameter schema IDs differ"),
        (other_key, 'unknown field "license"'),
    ],
)
def test_halves_that_do_not_match_are_refused(
    artifact: Artifact, tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    weights = shutil.copytree(artifact.model, tmp_path / "model")
    manifest = json.loads((weights / MODEL_MANIFEST).read_text())
    change(manifest)
    (weights / MODEL_MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(VerificationError, match=message):
        Session(artifact.library, weights, model_manifest=MODEL_MANIFEST).close()


def test_the_package_asks_for_it(artifact: Artifact, tmp_path: Path) -> None:
    options = ["--app", "web", "--model-manifest", "--output", str(tmp_path / "site")]
    edgec(tmp_path, "package", str(artifact.folder), *options)
    config = json.loads((tmp_path / "site/app-config.json").read_text())
    (record,) = config["model_list"]
    manifest = tmp_path / "site" / record["model"] / "resolve/main" / record["model_manifest"]
    assert manifest.read_bytes() == (artifact.model / MODEL_MANIFEST).read_bytes()
