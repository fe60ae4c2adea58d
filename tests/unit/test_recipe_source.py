from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from recipe_texts import MINIMAL, problem

from edgec.recipe import Recipe, parse_model_source

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, so that messages show the short path that was given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "kind", "location", "revision"),
    [
        ("hf:org/name", "hub", "org/name", None),
        ("hf:Org-1/na.me_2@v1.0", "hub", "Org-1/na.me_2", "v1.0"),
        ("hf:org/name@refs/pr/3", "hub", "org/name", "refs/pr/3"),
        ("models/llama", "folder", "models/llama", None),
        ("/models/llama", "folder", "/models/llama", None),
        ("../llama", "folder", "../llama", None),
        (r"C:\models", "folder", r"C:\models", None),
        ("synthetic:shapes/config.json", "synthetic", "shapes/config.json", None),
    ],
)
def test_model_sources(text: str, kind: str, location: str, revision: str | None) -> None:
    source = parse_model_source(text)
    assert (source.kind, source.location, source.revision) == (kind, location, revision)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "https://huggingface.co/org/name/tree/main",
            "is an address on the web; write hf:org/name",
        ),
        ("HTTP://example.org/m.zip", "write hf:ORG/NAME for a model of the Hugging Face hub, or"),
        ("https://[", "is an address on the web"),
        ("hf:gpt2", "'hf:gpt2' doesn't name a model; write hf:ORG/NAME or hf:ORG/NAME@REVISION"),
        ("hf:a/b/c", "doesn't name a model"),
        ("hf:../b", "doesn't name a model"),
        ("hf:a/b@", "'' isn't a revision"),
        ("hf:a/b@../x", "'../x' isn't a revision"),
        ("HF:a/b", "the prefix HF: is unknown; write hf:a/b"),
        ("s3://bucket/x", "the prefix s3: is unknown; write hf: or synthetic: or a path"),
        ("~/models", "'~' isn't expanded in recipes; write the whole path"),
        ("", "a path is missing"),
        (" x", "a path is missing or has spaces around it"),
        ("synthetic:", "write for example synthetic:my-model/config.json"),
    ],
)
def test_model_sources_that_are_refused(source: str, expected: str) -> None:
    message = problem(MINIMAL.replace("source: small", f"source: {json.dumps(source)}"))
    assert message.startswith("r.yaml:3:9: model.source: ")
    assert expected in message


@settings(deadline=None)
@given(st.text(max_size=50) | st.text(":/@.~hfsynthetic[]", max_size=30))
def test_any_source_is_accepted_or_refused(text: str) -> None:
    data = {
        "schema": "edgec.recipe/v1",
        "name": "x",
        "model": {"source": text},
        "quantization": {"scheme": "q0f32"},
        "targets": ["host"],
        "quality": {"text": text},
    }
    error = None
    try:
        Recipe.model_validate(data)
    except ValidationError as caught:
        error = caught
    if error is not None:
        wrong = {item["loc"] for item in error.errors()}
        assert wrong <= {("model", "source"), ("quality", "text")}
