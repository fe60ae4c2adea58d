"""Models with tables in parts against the same models with whole ones: nothing may change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.layouts.tensor_cache import TensorCache
from edgec.target import load_target
from numerics import tiny_models
from numerics.tiny_models import CHUNK, Built, build, library_of, run_stages, save_random_model
from on_every_change import nightly_but
from standin_tools import needs

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.runtime.engine import Engine
    from edgec.target import Target

pytestmark = pytest.mark.slow

# Sums in another order: other kernels compute heads with fewer rows.
CLOSE = 2e-5
SIZES = {
    "hidden_size": 512,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
}
# The vocabulary, whether the head is the table, the scheme, the limit in bytes, the parts.
CASES = {
    "tied q4f32_1": (1001, True, "q4f32_1", 100_000, 3),
    "untied q0f32": (2999, False, "q0f32", 2_000_000, 4),
}


def limited(name: str, most: int) -> Target:
    target = load_target(name)
    return target.model_copy(update={"limits": {**target.limits, "max_allocation_bytes": most}})


def saved(folder: Path, vocabulary: int, *, tied: bool) -> Path:
    from transformers import LlamaConfig  # noqa: PLC0415

    config = LlamaConfig(**SIZES, vocab_size=vocabulary, tie_word_embeddings=tied)
    save_random_model(config, folder, seed=11)
    return folder


def logits(engine: Engine, ids: list[int]) -> list[np.ndarray]:
    """The outputs of every function, for ids of every part."""
    engine.clear()
    engine.add(0)
    found = [engine.prefill(0, ids), engine.decode(0, ids[-1]), engine.all_logits(0, ids[:5])]
    engine.add(1)
    engine.add(2)
    found.append(engine.batch_prefill([1, 2], [ids[:3], ids[3:7]]))
    found.append(engine.batch_decode([1, 2], ids[-2:]))
    engine.clear()
    return found


def spread(vocabulary: int) -> list[int]:
    """Ids around the borders of parts, and the first and the last."""
    borders = {vocabulary * part // parts for parts in (2, 3, 4) for part in range(1, parts)}
    tiles = {border + step for border in borders for step in (-1, 0, 1)} | {335, 336, 383, 384}
    ids = sorted({0, vocabulary - 1, *tiles})
    return [int(item) for item in np.random.default_rng(0).permutation(ids)[: CHUNK - 4]]


def stored_parts(folder: Path) -> int:
    return sum(name.startswith("model.embed_tokens.") for name in TensorCache(folder).names())


@pytest.mark.parametrize("name", nightly_but("tied q4f32_1".__eq__, CASES))
def test_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    vocabulary, tied, scheme, most, parts = CASES[name]
    folder = saved(tmp_path / "model", vocabulary, tied=tied)
    whole = build(folder, tmp_path / "whole", scheme=scheme)
    monkeypatch.setattr(tiny_models, "load_target", lambda target: limited(target, most))
    split = build(folder, tmp_path / "split", scheme=scheme)
    tensors = 1 if scheme.startswith("q0") else 2
    assert stored_parts(tmp_path / "whole/pack") == tensors
    assert stored_parts(tmp_path / "split/pack") == tensors * parts
    _same(whole, split, spread(vocabulary))


def _same(whole: Built, split: Built, ids: list[int]) -> None:
    assert whole.weights.keys() == split.weights.keys()
    for name, values in whole.weights.items():
        np.testing.assert_array_equal(split.weights[name], values)
    for one, other in zip(logits(whole.engine, ids), logits(split.engine, ids), strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() < CLOSE * np.abs(one).max()


@pytest.mark.parametrize("scheme", ["q4f32_1", pytest.param("q4f16_1", marks=pytest.mark.nightly)])
@pytest.mark.parametrize("tool", [pytest.param("wgpu", marks=[needs("wgpu"), needs("wasmtime")])])
@needs("web toolchain")
def test_in_a_browsers_library(tmp_path: Path, scheme: str, tool: str) -> None:
    """Kernels alone beside their references too, with every access checked."""
    folder = saved(tmp_path / "model", 1280, tied=False)
    found: list[Any] = []
    for most in (1 << 30, 100_000):
        target = limited("webgpu", most)
        outputs = run_stages(folder, tmp_path / str(most), target, scheme=scheme)
        library = library_of(outputs, target)
        found.append(logits(library.open(CHUNK, sequences=3), spread(1280)))
        assert stored_parts(outputs["pack"]) == (2 if most == 1 << 30 else 8)
    close = CLOSE if scheme.endswith("f32_1") else 5e-3
    for one, other in zip(*found, strict=True):
        assert np.abs(one - other).max() < close * np.abs(one).max()
