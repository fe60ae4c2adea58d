"""Verification where a window slides: each way to call a library has logits of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from verification_fakes import VOCABULARY, FakeCapacity, FakeEngine, random_windows

from edgec.errors import VerificationError
from edgec.models.window import SlidingWindow
from edgec.progress import Silent
from edgec.verification.golden import check_golden, make_golden
from edgec.verification.paths import path_errors
from edgec.verification.run import verify
from edgec.verification.steps import STEPS, all_logits, calls

if TYPE_CHECKING:
    from collections.abc import Sequence

WINDOW = SlidingWindow(12, 3)
# The cache holds less than a text.
CAPACITY = FakeCapacity(sequences=4, tokens=48, prefill_chunk=20)
WAYS = (*STEPS, "batch")


class SlidingModel:
    """The logits of a token are a weighted sum of what it sees, by its place there."""

    def __init__(self, window: SlidingWindow = WINDOW) -> None:
        self.window = window
        self.table = np.random.default_rng(0).normal(size=(VOCABULARY, VOCABULARY))

    def call(self, kept: list[int], tokens: Sequence[int]) -> tuple[list[int], np.ndarray]:
        seen = [*kept, *tokens]
        rows = []
        for count in range(len(kept) + 1, len(seen) + 1):
            weights = 1 / np.arange(1, count + 1)
            rows.append(weights @ self.table[seen[:count]])
        return [seen[i] for i in self.window.kept(len(seen))], np.float32(rows)

    def logits(self, ids: list[int], calls: Sequence[int] = ()) -> np.ndarray:
        kept: list[int] = []
        rows, start = [], 0
        for count in calls or (len(ids),):
            kept, part = self.call(kept, ids[start : start + count])
            rows.append(part)
            start += count
        return np.concatenate(rows)


class SlidingEngine(FakeEngine):
    """Keeps what its model's window says."""

    def __init__(self, window: SlidingWindow = WINDOW) -> None:
        super().__init__(capacity=CAPACITY)
        self.sliding = SlidingModel(window)
        self.kept: dict[int, list[int]] = {}

    def add(self, sequence: int) -> None:
        super().add(sequence)
        self.kept[sequence] = []

    def append(self, sequence: int, tokens: Sequence[int]) -> np.ndarray:
        size, parts = self.capacity.prefill_chunk, []
        for start in range(0, len(tokens), size):
            self.kept[sequence], part = self.sliding.call(
                self.kept[sequence], tokens[start : start + size]
            )
            parts.append(part)
        return np.concatenate(parts)


TEXT = random_windows(90, 70, 33)
MODEL = SlidingModel()


def wrong_ways(engine: SlidingEngine) -> set[str]:
    errors = path_errors(engine, TEXT, MODEL.logits, WINDOW)
    assert not engine.states, "a sequence was left behind"
    return {way for way in WAYS if errors[way] > 1e-4}


def test_what_is_kept() -> None:
    assert WINDOW.kept(12) == list(range(12))
    assert WINDOW.kept(13) == [0, 1, 2, *range(4, 13)]
    assert WINDOW.kept(100) == [0, 1, 2, *range(91, 100)]
    assert SlidingWindow(4, 0).kept(9) == [5, 6, 7, 8]


def test_ways_differ_and_each_is_right() -> None:
    chunked, single = (MODEL.logits(TEXT[0], calls(way, 90, 20)) for way in ("prefill", "decode"))
    assert np.abs(chunked - single).max() > 0.1
    np.testing.assert_array_equal(chunked[: WINDOW.size], single[: WINDOW.size])
    assert wrong_ways(SlidingEngine()) == set()


@pytest.mark.parametrize(
    "window", [SlidingWindow(12, 2), SlidingWindow(13, 3), SlidingWindow(99, 3)]
)
def test_another_window_shows(window: SlidingWindow) -> None:
    # A batch decodes four tokens, which stay within the window here.
    assert wrong_ways(SlidingEngine(window)) >= {"all_logits", "chunked_prefill", "decode"}


@pytest.mark.parametrize("way", STEPS)
def test_how_many_tokens_come_at_a_time(way: str) -> None:
    engine = SlidingEngine()
    seen = []

    def visit(position: int, got: np.ndarray) -> None:
        seen.append(position)
        np.testing.assert_array_equal(got, table[position])

    table = MODEL.logits(TEXT[0], calls(way, 90, 20))
    STEPS[way](engine, TEXT[0], visit)
    assert seen[-1] == 89


def test_without_a_reference_the_library_is_compared_with_itself() -> None:
    engine = SlidingEngine()

    def itself(ids: list[int], parts: Sequence[int]) -> np.ndarray:
        return all_logits(engine, ids, parts)

    errors = path_errors(engine, TEXT, itself, WINDOW)
    assert all(errors[way] == 0 for way in WAYS)


def test_a_text_may_be_longer_than_the_cache() -> None:
    report = verify(
        SlidingEngine(),
        MODEL,
        MODEL,
        TEXT,
        documents=[],
        dtype="float32",
        progress=Silent(),
        window=WINDOW,
    )
    assert report["compiler"]["max_logit_error"] == 0
    assert report["total"]["kl"] == 0


def test_golden_outputs_behind_the_window_are_those_of_chunks() -> None:
    golden = make_golden(SlidingEngine(), TEXT[0], "float32", MODEL, WINDOW)
    assert len(golden.tokens) == 90
    errors = check_golden(SlidingEngine(), golden, WINDOW)
    assert set(errors["reference"].values()) == {0.0}
    with pytest.raises(VerificationError, match=r"\(all_logits\) differ"):
        check_golden(SlidingEngine(SlidingWindow(12, 4)), golden, WINDOW)
