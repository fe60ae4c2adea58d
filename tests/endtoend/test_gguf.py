"""tinypy as a GGUF file, from recipe to a verified artifact."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from endtoend.command import edgec
from gguf_models import write_tinypy

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("gguf")
pytestmark = pytest.mark.slow

RECIPE = """\
schema: edgec.recipe/v1
name: NAME
description: tinypy in a GGUF file.
model:
  source: NAME.gguf
context: {length: 256, prefill_chunk: 64, max_batch_size: 2}
quantization: {scheme: SCHEME, method: rtn, group_size: 32}
targets: [host]
quality: {text: text.py, tokens: 200, window: 100}
chat: {template: completion}
"""


def _build(folder: Path, kind: str, scheme: str) -> dict[str, Any]:
    name = kind.lower().replace("_", "")
    write_tinypy(folder / f"{name}.gguf", kind)
    text = (folder / "text.py", "class Reader:\n    def read(self):\n        return self.x\n" * 60)
    text[0].write_text(text[1])
    recipe = folder / f"{name}.yaml"
    recipe.write_text(RECIPE.replace("NAME", name).replace("SCHEME", scheme))
    edgec(folder, "build", recipe.name)
    (manifest,) = (folder / "artifacts" / name).rglob("manifest.json")
    report: dict[str, Any] = json.loads((manifest.parent / "report.json").read_text())
    assert (manifest.parent / "model" / "tokenizer.json").is_file()
    return report


@pytest.mark.nightly
def test_float16_is_the_model_itself(tmp_path: Path) -> None:
    report = _build(tmp_path, "F16", "q0f32")
    assert report["total"]["top1"] == 1
    assert report["total"]["max_logit_error"] <= 1e-3
    said = edgec(tmp_path, "inspect", "f16.gguf")
    assert "llama" in said.lower()
    assert "F16" in said


def test_codes_lose_nothing(tmp_path: Path) -> None:
    """The loss is counted from the file's own values: there is none but that of rounded activations."""
    report = _build(tmp_path, "Q4_0", "q4f32_1")
    taken = report["taken_over"]
    assert taken["exactly"] == taken["matrices"] == len(taken["names"]) == 25
    assert report["quantizer"]["kl"] == pytest.approx(0, abs=1e-9)
    assert report["quantizer"]["top1"] == 1
    assert report["total"]["kl"] <= 1e-3
