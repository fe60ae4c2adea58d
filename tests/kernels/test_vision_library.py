"""A model that takes images, built for browsers: each kernel alone, and logits against transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgec.target import load_target
from numerics.tiny_models import CHUNK, Built, library_of, run_stages, shipped_weights
from numerics.vision_case import SIZE, VisionCase, save_model
from standin_tools import needs

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    *(needs(name) for name in ("clang", "wgpu", "wasmtime", "web toolchain")),
]

# Sums of some hundred products in another order, through a tower and the layers of the text.
CLOSE = 2e-5
PROMPT: list[int | str] = [1, 7, "0", 12]


def test_on_a_stand_in(tmp_path: Path) -> None:
    """In half precision positions would be the same: of them the kernels' check says all."""
    model = save_model(tmp_path / "model")
    target = load_target("webgpu")
    outputs = run_stages(
        tmp_path / "model", tmp_path / "stages", target, scheme="q4f32_1", image_size=SIZE
    )
    library = library_of(outputs, target)
    checked = library.check_kernels([3, 4, 5, 6])["checked"]
    for kernel in ("segment_attention_2x32", "image_marks", "mrope", "mrope_positions"):
        assert kernel in checked, kernel
    engine = library.open(CHUNK, sequences=1)
    case = VisionCase(Built(engine, shipped_weights(outputs, target.layout)), model)
    rows, wanted = case.image(0).rows[:, :-4], case.reference_image(0)
    assert np.abs(rows - wanted).max() < CLOSE * np.abs(wanted).max()
    tokens, logits = case.tokens(PROMPT), case.reference(PROMPT)
    engine.add(0)
    engine.prefill(0, tokens[:11])
    found = engine.all_logits(0, tokens[11:])
    assert np.abs(found - logits[11:]).max() < CLOSE * np.abs(logits).max()
