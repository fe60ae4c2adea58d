"""The ways to compute logits: what they call, and that each kind of defect shows."""

from __future__ import annotations

import numpy as np
import pytest
from verification_fakes import (
    DecodesOffByOne,
    FakeCapacity,
    FakeEngine,
    FakeModel,
    ForgetsAtChunks,
    LastRowOnly,
    MixesBatches,
    Overflows,
    random_windows,
)

from edgec.errors import VerificationError
from edgec.verification.paths import path_errors, ragged_prompts
from edgec.verification.steps import chunked_prefill, fresh_sequences

WAYS = ("all_logits", "prefill", "chunked_prefill", "decode", "batch")
MODEL = FakeModel()


def broken_ways(engine: FakeEngine, windows: list[list[int]]) -> set[str]:
    errors = path_errors(engine, windows, MODEL.logits)
    assert not engine.states, "a sequence was left behind"
    return {way for way in WAYS if errors[way] > 1e-4}


def test_a_sound_engine_takes_every_path() -> None:
    engine = FakeEngine()
    windows = random_windows(60, 50, 40)
    errors = path_errors(engine, windows, MODEL.logits)
    assert set(errors) == {*WAYS, "batch_size", "logit_scale"}
    assert all(errors[way] == 0 for way in WAYS)
    assert errors["batch_size"] == 3
    assert errors["logit_scale"] == pytest.approx(
        max(np.abs(MODEL.logits(ids)).max() for ids in windows), rel=1e-5
    )
    assert {"all_logits", "prefill", "decode", "batch_prefill", "batch_decode"} == set(engine.calls)
    assert len(set(engine.batch_orders)) == 3, "the order of a batch changes"
    assert not engine.states


@pytest.mark.parametrize(
    ("engine", "ways"),
    [
        (ForgetsAtChunks(), {"chunked_prefill"}),
        (DecodesOffByOne(), {"decode"}),
        (MixesBatches(), {"batch"}),
        (LastRowOnly(), {"batch"}),
        (FakeEngine(FakeModel(noise=0.01)), set(WAYS)),
    ],
)
def test_a_defect_shows_where_it_is(engine: FakeEngine, ways: set[str]) -> None:
    assert broken_ways(engine, random_windows(60, 50, 40)) == ways


def test_a_nan_is_never_taken_for_agreement() -> None:
    engine = Overflows()
    with pytest.raises(
        VerificationError, match=r"the artifact \(decode\) gives logits that are not"
    ):
        path_errors(engine, random_windows(20), MODEL.logits)
    assert not engine.states


@pytest.mark.parametrize("lengths", [(2,), (3, 2), (20, 30), (60, 5, 2), (8, 8, 8, 8), (64,) * 5])
def test_any_number_of_windows_of_any_length(lengths: tuple[int, ...]) -> None:
    assert broken_ways(FakeEngine(), random_windows(*lengths)) == set()


@pytest.mark.parametrize(
    "capacity",
    [
        FakeCapacity(1, 64, 64),
        FakeCapacity(2, 64, 2),
        FakeCapacity(4, 64, 1),
        FakeCapacity(4, 40, 40),
        FakeCapacity(3, 7, 7),
    ],
)
def test_small_engines(capacity: FakeCapacity) -> None:
    engine = FakeEngine(capacity=capacity)
    longest = min(40, capacity.tokens)
    assert broken_ways(engine, random_windows(longest, longest - 1, 3)) == set()
    assert path_errors(engine, random_windows(5), MODEL.logits)["batch_size"] == min(
        3, capacity.sequences, capacity.prefill_chunk
    )


def test_prompts_are_ragged_and_fit() -> None:
    lengths = ragged_prompts(FakeEngine(), random_windows(60, 60, 60))
    assert len(set(lengths)) == 3
    assert sum(lengths) <= 64


def test_chunks_are_uneven_and_no_larger_than_the_engine_s() -> None:
    engine = FakeEngine(capacity=FakeCapacity(prefill_chunk=20))
    ids = random_windows(100)[0]
    seen: list[int] = []
    chunked_prefill(engine, ids, lambda position, _: seen.append(position))
    assert sum(engine.chunks) == 100
    assert seen[-1] == 99
    assert max(engine.chunks) == 20
    assert len(set(engine.chunks)) >= 4


def test_sequences_are_forgotten_when_a_comparison_fails() -> None:
    engine = FakeEngine(capacity=FakeCapacity(sequences=2))
    with pytest.raises(ZeroDivisionError), fresh_sequences(engine, 2):
        1 / 0  # noqa: B018 - any failure
    assert not engine.states
    with pytest.raises(AssertionError), fresh_sequences(engine, 3):
        pass
    assert not engine.states
