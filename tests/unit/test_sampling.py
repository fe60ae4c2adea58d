"""The sampler against distributions that are computed independently in float64."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgec.errors import BuildError, UsageError
from edgec.runtime import sampling
from edgec.runtime.sampling import Sampler, SamplingOptions

if TYPE_CHECKING:
    import numpy.typing as npt

DRAWS = 5_000
LOGITS = np.array([2.0, -1.0, 0.5, 1.9, -3.0, 0.5, 1.0, -0.25], np.float32)


def expected(
    logits: npt.NDArray[np.float32], options: SamplingOptions, counts: dict[int, int]
) -> list[float]:
    """Probabilities by the definitions, in plain Python."""
    values = [float(value) for value in logits]
    for token, count in counts.items():
        value = values[token] - options.presence_penalty - options.frequency_penalty * count
        penalty = options.repetition_penalty
        values[token] = value * penalty if value < 0 else value / penalty
    highest = max(values)
    weights = [math.exp((value - highest) / options.temperature) for value in values]
    order = sorted(range(len(weights)), key=lambda token: (-weights[token], token))
    order = order[: options.top_k]
    total = math.fsum(weights[token] for token in order)
    kept, share = [], 0.0
    for token in order:
        kept.append(token)
        share += weights[token] / total
        if share >= options.top_p - 1e-12:
            break
    total = math.fsum(weights[token] for token in kept)
    return [weights[token] / total if token in kept else 0.0 for token in range(len(weights))]


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, {}),
        ({"temperature": 0.5}, {}),
        ({"temperature": 2.5}, {}),
        ({"top_p": 0.6}, {}),
        ({"top_p": 0.9, "temperature": 1.5}, {}),
        ({"top_p": 1e-9}, {}),
        ({"top_k": 3}, {}),
        ({"top_k": 5, "top_p": 0.8}, {}),
        ({"top_k": 100}, {}),
        ({"repetition_penalty": 1.8}, {0: 1, 4: 2}),
        ({"presence_penalty": 1.0}, {0: 3, 3: 1}),
        ({"frequency_penalty": 0.5}, {0: 3, 3: 1}),
        (
            {"frequency_penalty": -0.5, "presence_penalty": 0.3, "repetition_penalty": 1.3},
            {1: 4, 0: 2},
        ),
    ],
)
def test_distribution(changes: dict[str, Any], counts: dict[int, int]) -> None:
    options = SamplingOptions(**changes, seed=7)
    sampler = Sampler(options)
    drawn = Counter(sampler.sample(LOGITS, counts) for _ in range(DRAWS))
    for token, probability in enumerate(expected(LOGITS, options, counts)):
        error = math.sqrt(probability * (1 - probability) / DRAWS)
        assert abs(drawn[token] / DRAWS - probability) <= 4 * error, token
        if probability == 0:
            assert drawn[token] == 0


@given(
    st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40),
    st.floats(0.01, 1),
    st.none() | st.integers(1, 50),
    st.integers(1, 8),
)
@example([2.0, 0.0, 0.0, 0.0, 0.0, 0.0], 0.65, 3, 2)  # the share is of what top_k leaves
def test_the_candidates_are_those_of_a_full_sort(
    values: list[float], top_p: float, top_k: int | None, first: int
) -> None:
    """However small the first guess of how many are needed, and with ties."""
    logits = np.array(values, np.float32)
    options = SamplingOptions(top_p=top_p, top_k=top_k)
    weights = np.exp(logits.astype(np.float64) - max(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "_FIRST_CANDIDATES", first)
        kept = sampling._most_likely(weights, options).tolist()
    order = sorted(range(len(values)), key=lambda token: (-weights[token], token))
    assert kept == order[: len(kept)]
    limited = order[:top_k]
    total = math.fsum(weights[limited])
    assert len(kept) <= len(limited)
    assert math.fsum(weights[kept]) >= (top_p - 1e-9) * total
    assert math.fsum(weights[kept[:-1]]) <= (top_p + 1e-9) * total


def test_a_large_vocabulary_is_not_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    sorted_sizes: list[int] = []
    largest = sampling._largest

    def counting(weights: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
        sorted_sizes.append(count)
        return largest(weights, count)

    monkeypatch.setattr(sampling, "_largest", counting)
    logits = np.zeros(100_000, np.float32)
    logits[5] = 20
    assert Sampler(SamplingOptions(top_p=0.9, seed=0)).sample(logits, {}) == 5
    assert sum(sorted_sizes) < 1000


def test_greedy_takes_the_first_of_the_most_likely() -> None:
    sampler = Sampler(SamplingOptions(temperature=0, top_p=0.1))
    assert sampler.sample(np.array([1, 3, 3, 2], np.float32), {}) == 1
    assert sampler.sample(np.array([-math.inf, -5, -4], np.float32), {}) == 2


def test_greedy_sees_the_penalties() -> None:
    sampler = Sampler(SamplingOptions(temperature=0, repetition_penalty=2.0))
    logits = np.array([3.0, 2.0, -1.0], np.float32)
    assert sampler.sample(logits, {0: 1}) == 1
    assert sampler.sample(-logits, {2: 1}) == 2
    assert logits.tolist() == [3.0, 2.0, -1.0]


@pytest.mark.parametrize("temperature", [1e-300, 1e-6, 0.01])
def test_a_tiny_temperature_is_greedy(temperature: float) -> None:
    sampler = Sampler(SamplingOptions(temperature=temperature, seed=1))
    assert {sampler.sample(LOGITS, {}) for _ in range(50)} == {0}


def test_excluded_tokens_are_never_drawn() -> None:
    logits = np.array([-math.inf, 0, -math.inf, 0, -math.inf], np.float32)
    for changes in ({}, {"top_p": 0.99}, {"top_k": 5}):
        sampler = Sampler(SamplingOptions(temperature=100, seed=2, **changes))
        assert {sampler.sample(logits, {}) for _ in range(200)} == {1, 3}


def draws(seed: int | None) -> list[int]:
    sampler = Sampler(SamplingOptions(seed=seed, temperature=3.0))
    return [sampler.sample(LOGITS, {}) for _ in range(64)]


def test_seeds() -> None:
    assert draws(5) == draws(5)
    assert draws(5) != draws(6)
    assert draws(None) != draws(None)


def test_choices_of_a_seed_do_not_change_between_versions() -> None:
    # The first numbers that PCG64 gives for the seed 0, as NumPy's documentation shows them.
    uniform = [0.63696169, 0.26978671, 0.04097352, 0.01652764, 0.81327024, 0.91275558]
    shares = np.cumsum(expected(LOGITS, SamplingOptions(temperature=3.0), {}))
    assert draws(0)[:6] == [int((shares <= number).sum()) for number in uniform]


@pytest.mark.parametrize(
    "values", [[1, math.nan, 2], [1, math.inf], [-math.inf, -math.inf], [math.nan, math.nan]]
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_unusable_logits(values: list[float], temperature: float) -> None:
    with pytest.raises(BuildError, match="logits are unusable"):
        Sampler(SamplingOptions(temperature=temperature)).sample(np.array(values, np.float32), {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("top_k", 0),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", math.inf),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -2.5),
        ("seed", -1),
    ],
)
def test_options_out_of_range(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{name}: .* is out of range; give a"):
        SamplingOptions(**{name: value})


def test_options_of_an_artifact() -> None:
    config = {"temperature": 0.6, "top_p": 0.9, "repetition_penalty": None, "vocab_size": 4}
    assert SamplingOptions.from_chat_config(config, top_p=None, seed=3, temperature=0.0) == (
        SamplingOptions(temperature=0.0, top_p=0.9, seed=3)
    )


@pytest.mark.parametrize("vocabulary", [127, 128, 5000, 128 * 300 + 1])
def test_large_vocabularies_are_drawn_from_by_their_distribution(vocabulary: int) -> None:
    random = np.random.default_rng(vocabulary)
    logits = (random.standard_normal(vocabulary) * 4).astype(np.float32)
    logits[random.integers(0, vocabulary, vocabulary // 3)] = -np.inf
    sums = np.cumsum(np.exp(logits.astype(np.float64) - logits.max()))
    differing = 0
    for seed in range(200):
        drawn = np.random.Generator(np.random.PCG64(seed)).random() * sums[-1]
        expected = int(np.searchsorted(sums, drawn, side="right"))
        found = Sampler(SamplingOptions(seed=seed)).sample(logits, {})
        assert np.isfinite(logits[found])
        differing += found != expected
    assert differing <= 1, "a draw may fall between two tokens by rounding"


@pytest.mark.parametrize("top_k", [1, 5, 50, 200])
def test_the_most_likely_of_a_large_vocabulary(top_k: int) -> None:
    random = np.random.default_rng(top_k)
    # Few different values, so that there are ties.
    logits = np.round(random.standard_normal(30_000), 2).astype(np.float32)
    best = set(np.argsort(-logits, kind="stable")[:top_k].tolist())
    found = {
        Sampler(SamplingOptions(top_k=top_k, temperature=5.0, seed=seed)).sample(logits, {})
        for seed in range(300)
    }
    assert found <= best
    assert len(found) > top_k // 2
