"""Models whose keys and values are rounded as a KV cache holds them: in PyTorch, and libraries beside it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.models.window import SlidingWindow
from edgec.verification.reference import Reference, reference_model
from edgec.verification.rounded_cache import held
from edgec.verification.rounding import ACTIVATIONS, ALL, CACHE
from edgec.verification.statistics import Comparison
from edgec.verification.tolerance import ROUNDED_TIMES
from numerics.family_case import FLOAT16, FLOAT32, Case, check_halves, tokens_of
from numerics.tiny_models import CHUNK, SIZES, build, save_random_model
from on_every_change import nightly_but

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

LLAMA: dict[str, Any] = {"model_type": "llama", **SIZES, "num_key_value_heads": 2}
# With rotations of a part of a head, windows of layers, norms of keys, and several names of a cache.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "gpt_neox": {**SIZES, "model_type": "gpt_neox", "rotary_pct": 0.25},
    "gemma3_text": {
        **LLAMA,
        "model_type": "gemma3_text",
        "head_dim": 16,
        "sliding_window": 8,
        "sliding_window_pattern": 2,
    },
    "qwen3": {**LLAMA, "model_type": "qwen3", "head_dim": 16},
}
IDS = np.random.default_rng(0).integers(0, 100, 40).tolist()
STORED = pytest.mark.parametrize("stored", ["int8", "float16"])


def exact(rows: np.ndarray, stored: str) -> np.ndarray:
    """What a cache hands back, by its definition."""
    if stored == "float16":
        return rows.astype(np.float16).astype(np.float32)
    scales = np.abs(rows).max(axis=-1, keepdims=True) / np.float32(127)
    steps = np.divide(rows, scales, out=np.zeros_like(rows), where=scales > 0)
    back: np.ndarray = np.rint(steps).astype(np.int8) * scales
    return back


def model_of(config: dict[str, Any], window: SlidingWindow | None, stored: str) -> Reference:
    random = np.random.default_rng(1)

    def fill(name: str, out: np.ndarray) -> None:
        scale = 0.2 if out.ndim > 1 else 0.5
        out[:] = random.normal(1.0 if "norm.weight" in name else 0.0, scale, out.shape)

    return reference_model(config, fill, window, stored=stored)


@STORED
def test_rows_come_back_as_their_bits_say(stored: str) -> None:
    rows = np.random.default_rng(2).normal(size=(2, 3, 5, 16)).astype(np.float32)
    rows[0, 1] = 0
    rows[0, 2] *= 1e-6
    rows[1, 0, 0, :8] = [127, 0.5, 1.5, 2.5, -0.5, -1.5, 3.5, -126.5]
    found = held(torch.from_numpy(rows), stored).numpy()
    np.testing.assert_array_equal(found, exact(rows, stored))
    if stored == "int8":
        assert found[1, 0, 0, :8].tolist() == [127, 0, 2, 2, 0, -2, 4, -126]
        # No number is further off than half a step of its row.
        steps = np.abs(rows).max(axis=-1, keepdims=True) / 127
        assert (np.abs(found - rows) <= steps * 0.50001).all()
    np.testing.assert_array_equal(held(torch.from_numpy(rows), "").numpy(), rows)


@pytest.mark.parametrize(
    ("family", "stored"), [*((family, "int8") for family in FAMILIES), ("llama", "float16")]
)
def test_attention_sees_rounded_keys_and_values(
    family: str, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the same model with its attention replaced, which is where rotated keys arrive."""
    config = FAMILIES[family]
    model = model_of(config, None, stored)
    plain = model.logits(IDS)
    assert list(model.roundings) == [CACHE]
    found = model.roundings[CACHE].logits(IDS)

    kind = type(model._model)
    module = sys.modules[kind.__module__]
    attend: Callable[..., Any] = module.eager_attention_forward

    def rounding_attention(
        layer: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any
    ) -> Any:
        key, value = (torch.from_numpy(exact(rows.numpy(), stored)) for rows in (key, value))
        return attend(layer, query, key, value, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(module, "eager_attention_forward", rounding_attention)
        expected = model.logits(IDS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(plain).max())
    np.testing.assert_array_equal(model.logits(IDS), plain)
    loss = np.abs(found - plain).max() / np.abs(plain).max()
    assert (1e-3 if stored == "int8" else 1e-6) < loss < (0.2 if stored == "int8" else 2e-3)


@STORED
def test_windows_hold_keys_as_they_were_projected(stored: str) -> None:
    """Against the same model whose projections are rounded, head by head."""
    model = model_of(LLAMA, SlidingWindow(16, 2), stored)
    parts = (10, 1, 1, 20, 8)
    plain = model.logits(IDS, parts)
    found = model.roundings[CACHE].logits(IDS, parts)
    width = LLAMA["hidden_size"] // LLAMA["num_attention_heads"]

    def rounding(_layer: Any, _inputs: Any, rows: Any) -> Any:
        heads = rows.numpy().reshape(*rows.shape[:-1], -1, width)
        return torch.from_numpy(exact(heads, stored).reshape(rows.shape))

    hooks = [
        layer.register_forward_hook(rounding)
        for name, layer in model._model.named_modules()
        if name.endswith(("k_proj", "v_proj"))
    ]
    expected = model.logits(IDS, parts)
    for hook in hooks:
        hook.remove()
    assert len(hooks) == 2 * LLAMA["num_hidden_layers"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(plain).max())
    assert np.abs(found - plain).max() > 1e-6 * np.abs(plain).max()
    np.testing.assert_array_equal(model.logits(IDS, parts), plain)


def test_what_is_rounded_has_its_names() -> None:
    model = model_of(LLAMA, None, "int8")
    groups = {
        layer.weight.data_ptr(): 32
        for layer in model._model.modules()
        if isinstance(layer, torch.nn.Linear)
    }
    both = Reference(model._model, None, groups, "int8")
    assert list(both.roundings) == [CACHE, ALL]
    plain = both.logits(IDS)
    losses = [np.abs(m.logits(IDS) - plain).max() for m in both.roundings.values()]
    assert 0 < losses[0] != losses[1] > 0
    alone = Reference(model._model, None, groups)
    assert list(alone.roundings) == [ACTIVATIONS]
    assert alone.rounded is not None
    assert both.rounded is not None
    assert np.abs(alone.rounded.logits(IDS) - both.rounded.logits(IDS)).max() > 0
    assert not Reference(model._model).roundings
    assert Reference(model._model).rounded is None


LIBRARIES: dict[str, tuple[dict[str, Any], str, str, float]] = {
    "int8": (LLAMA, "q0f32", "int8", FLOAT32),
    "float16": (LLAMA, "q0f32", "float16", FLOAT32),
    "int8 of half precision": (LLAMA, "q0f16", "int8", FLOAT16),
    "keys that the model rotates, layers with windows": (
        FAMILIES["gemma3_text"],
        "q0f32",
        "int8",
        FLOAT32,
    ),
    "heads of which a part turns": (
        {**LLAMA, "model_type": "stablelm", "partial_rotary_factor": 0.25},
        "q0f32",
        "int8",
        FLOAT32,
    ),
}


@pytest.mark.parametrize("name", nightly_but("int8".__eq__, LIBRARIES))
def test_a_library_loses_what_torch_does(name: str, tmp_path: Path) -> None:
    from transformers import AutoConfig  # noqa: PLC0415

    settings, scheme, stored, close = LIBRARIES[name]
    model = save_random_model(AutoConfig.for_model(**settings), tmp_path / "model", seed=7)
    built = build(tmp_path / "model", tmp_path / "stages", scheme=scheme, kv_cache=stored)
    case = Case(built, model, close)
    tokens = tokens_of(CHUNK - 3)
    plain = case.reference(tokens)
    rounded = Reference(model, stored=stored).roundings[CACHE].logits(tokens)
    measure, scale = np.abs(rounded - plain).max(), np.abs(plain).max()
    limit = close * scale + ROUNDED_TIMES * measure
    assert 0 < measure < 0.1 * scale

    case.engine.add(0)
    found = case.engine.all_logits(0, tokens)
    assert np.abs(found - plain).max() < limit
    if close == FLOAT32:
        # Next to what the cache rounds, nothing is lost: another way to round would show.
        torch_loss, loss = Comparison("", ""), Comparison("", "")
        torch_loss.update(plain, rounded, tokens)
        loss.update(plain, found, tokens)
        assert 0.5 < loss.summary()["kl"] / torch_loss.summary()["kl"] < 2
        assert np.abs(found - rounded).max() < np.abs(found - plain).max()

    check_halves(case.engine, tokens, plain, limit)


@pytest.mark.nightly
def test_a_library_with_a_window_loses_what_torch_does(tmp_path: Path) -> None:
    from transformers import LlamaConfig  # noqa: PLC0415

    window = SlidingWindow(24, 4)
    save_random_model(LlamaConfig(**{**SIZES, "num_key_value_heads": 2}), tmp_path / "m", seed=7)
    built = build(
        tmp_path / "m", tmp_path / "stages", scheme="q0f32", window=window, kv_cache="int8"
    )

    def fill(name: str, out: np.ndarray) -> None:
        out[:] = built.weights[name]

    model = reference_model(LLAMA, fill, window, stored="int8")
    tokens, parts = tokens_of(70), [20, *([1] * 30), 20]
    plain, rounded = (
        reference.logits(tokens, parts) for reference in (model, model.roundings[CACHE])
    )
    measure = np.abs(rounded - plain).max()
    built.engine.add(0, window)
    rows, at = [], 0
    for count in parts:
        part = tokens[at : at + count]
        rows.append(
            built.engine.decode(0, part[0])[None]
            if count == 1
            else built.engine.all_logits(0, part)
        )
        at += count
    found = np.concatenate(rows)
    assert 0 < measure < 0.1 * np.abs(plain).max()
    assert np.abs(found - plain).max() < ROUNDED_TIMES * measure
    assert np.abs(found - rounded).max() < np.abs(found - plain).max()
