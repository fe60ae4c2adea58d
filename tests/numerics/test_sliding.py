"""Sliding windows: the library on TVM's cache against transformers with the same keys and positions.

The two have nothing in common but the definition: one keeps pages and rotates by distances, the
other keeps rows and rotates by positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.models.window import SlidingWindow
from edgec.runtime.tvm_runtime import shape
from edgec.verification.reference import Reference, reference_model
from edgec.verification.steps import calls
from numerics.tiny_models import BATCH, CHUNK, SIZES, Built, build, save_random_model

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.slow

pytest.importorskip("torch")

# In the library's metadata; each test slides windows of its own.
BUILT = SlidingWindow(24, 4)
WINDOWS = [BUILT, SlidingWindow(40, 0), SlidingWindow(37, 17), SlidingWindow(48, 16)]
CONFIG: dict[str, Any] = {
    **SIZES,
    "num_key_value_heads": 2,
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 1000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}
# Of the largest logit; angles are rounded to float32 in both.
TOLERANCE = 5e-5
EVERY = pytest.mark.parametrize("window", WINDOWS, ids=str)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    from transformers import LlamaConfig  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("model")
    save_random_model(LlamaConfig(**CONFIG), folder, seed=3)
    return build(folder, tmp_path_factory.mktemp("stages"), scheme="q0f32", window=BUILT)


class Case:
    """An engine whose sequences slide one window, and the reference that does."""

    def __init__(self, built: Built, window: SlidingWindow) -> None:
        self.engine = built.engine
        self.engine.clear()
        self.window = window
        self._weights = built.weights
        self._sliding = self._model(window)

    def _model(self, window: SlidingWindow | None) -> Reference:
        def fill(name: str, out: np.ndarray) -> None:
            out[:] = self._weights[name]

        return reference_model({"model_type": "llama", **CONFIG}, fill, window)

    def add(self, sequence: int) -> None:
        self.engine.add(sequence, self.window)

    def wanted(self, tokens: list[int], parts: Sequence[int]) -> np.ndarray:
        return self._sliding.logits(tokens, parts)

    def without_window(self, tokens: list[int]) -> np.ndarray:
        return self._model(None).logits(tokens)


@pytest.fixture
def case(built: Built, window: SlidingWindow) -> Case:
    return Case(built, window)


def expect(got: np.ndarray, wanted: np.ndarray) -> None:
    error = np.abs(got - wanted).max() / np.abs(wanted).max()
    assert error < TOLERANCE, f"relative error {error:.2e}"


def tokens_of(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(1, 300, count)]


def test_the_library_tells_engines_of_its_window(built: Built) -> None:
    metadata = built.engine.metadata
    names = ("context_window_size", "sliding_window_size", "attention_sink_size")
    assert [metadata[name] for name in names] == [-1, BUILT.size, BUILT.sinks]
    assert built.engine.window == BUILT
    assert built.engine.capacity.sequences == BATCH


@EVERY
@pytest.mark.parametrize("more", [-5, -1, 0, 1, 16, 60])
def test_prefill_around_the_window(case: Case, more: int) -> None:
    """Shorter, as long and longer, in chunks that may be larger than the window."""
    tokens = tokens_of(case.window.size + more)
    case.add(0)
    wanted = case.wanted(tokens, calls("all_logits", len(tokens), CHUNK))
    expect(case.engine.all_logits(0, tokens), wanted)


@EVERY
def test_decode_far_past_the_window(case: Case) -> None:
    prompt, tokens = 11, tokens_of(11 + 5 * case.window.size)
    wanted = case.wanted(tokens, [prompt] + [1] * (len(tokens) - prompt))
    case.add(0)
    expect(case.engine.prefill(0, tokens[:prompt]), wanted[prompt - 1])
    for position in range(prompt, len(tokens)):
        expect(case.engine.decode(0, tokens[position]), wanted[position])
    # It would not agree by chance.
    whole = case.without_window(tokens)
    assert np.abs(wanted - whole)[-1].max() > 100 * TOLERANCE * np.abs(whole).max()
    expect(wanted[: case.window.size], whole[: case.window.size])


@EVERY
def test_uneven_chunks(case: Case) -> None:
    parts = [3, 1, 30, 2, 17, 32, 1, 1, 16, 32, 5]
    tokens = tokens_of(sum(parts))
    wanted = case.wanted(tokens, parts)
    case.add(0)
    end = 0
    for count in parts:
        got = case.engine.prefill(0, tokens[end : end + count])
        end += count
        expect(got, wanted[end - 1])


@EVERY
def test_batches_of_different_lengths(case: Case) -> None:
    lengths = {5: 70, 9: 2, 2: case.window.size - 1}
    chunks = [7, 1, 20]
    total = {number: length + sum(chunks) + 30 for number, length in lengths.items()}
    sequences = {number: tokens_of(count, seed=number) for number, count in total.items()}
    ends, wanted = {}, {}
    for number, length in lengths.items():
        parts = [*calls("prefill", length, CHUNK), *chunks, *[1] * 30]
        if number == 9:  # joins the others in the chunks in another order
            parts = [*calls("prefill", length, CHUNK), *reversed(chunks), *[1] * 30]
        wanted[number] = case.wanted(sequences[number], parts)
        case.add(number)
        expect(case.engine.prefill(number, sequences[number][:length]), wanted[number][length - 1])
        ends[number] = length
    for step, count in enumerate(chunks):
        counts = {5: count, 9: chunks[-1 - step]}
        logits = case.engine.batch_prefill(
            list(counts), [sequences[n][ends[n] : ends[n] + size] for n, size in counts.items()]
        )
        for row, (number, size) in enumerate(counts.items()):
            ends[number] += size
            expect(logits[row], wanted[number][ends[number] - 1])
        got = case.engine.prefill(2, sequences[2][ends[2] : ends[2] + count])
        ends[2] += count
        expect(got, wanted[2][ends[2] - 1])
    for step in range(30):
        order = [2, 5, 9] if step % 2 else [9, 2, 5]
        logits = case.engine.batch_decode(order, [sequences[n][ends[n]] for n in order])
        for row, number in enumerate(order):
            expect(logits[row], wanted[number][ends[number]])
            ends[number] += 1


@pytest.mark.parametrize("window", [BUILT], ids=str)
def test_a_fork_within_the_first_tokens_slides_by_itself(case: Case) -> None:
    start, left, right = tokens_of(3), tokens_of(60, seed=1), tokens_of(60, seed=2)
    case.engine.add(0)
    case.engine.prefill(0, start)
    case.engine.fork(0, 1)
    for number, rest in enumerate((left, right)):
        wanted = case.wanted(start + rest, [3, *[1] * 60])
        for position, token in enumerate(rest, 3):
            expect(case.engine.decode(number, token), wanted[position])


@pytest.mark.parametrize("window", [BUILT], ids=str)
def test_the_cache_takes_no_more_than_its_windows(case: Case) -> None:
    """With the capacity that engines give it: pages of tokens that left are used again."""
    engine = case.engine
    cache = engine._cache
    engine._cache = engine.function("create_tir_paged_kv_cache")(
        shape([1]), shape([case.window.size]), shape([CHUNK]), shape([16]), shape([1])
    )
    try:
        tokens = tokens_of(400)
        wanted = case.wanted(tokens, [*calls("prefill", 100, CHUNK), *[1] * 300])
        engine.add(0)
        expect(engine.prefill(0, tokens[:100]), wanted[99])
        for position in range(100, 400):
            got = engine.decode(0, tokens[position])
        expect(got, wanted[-1])
    finally:
        engine._cache = cache
