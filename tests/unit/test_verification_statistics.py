"""The statistics of two models' logits, against a plain computation in float64."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.errors import VerificationError
from edgec.verification import statistics
from edgec.verification.figures import bounded_exp, largest_difference, rounded
from edgec.verification.statistics import Comparison

Window = tuple[np.ndarray, np.ndarray, list[int]]


def naive(windows: list[Window]) -> dict[str, float]:
    """What the figures are defined as, number by number."""
    divergences, agreements, losses, others, errors, scales = [], [], [], [], [], []
    for reference, other, tokens in windows:
        rows = zip(reference.astype(np.float64), other.astype(np.float64), strict=True)
        for position, (first, second) in enumerate(rows):
            p = np.exp(first - first.max()) / np.exp(first - first.max()).sum()
            log_p = first - first.max() - math.log(np.exp(first - first.max()).sum())
            log_q = second - second.max() - math.log(np.exp(second - second.max()).sum())
            divergences.append(math.fsum(p * (log_p - log_q)))
            agreements.append(first.argmax() == second.argmax())
            errors.append(np.abs(first - second).max())
            scales.append(np.abs(first).max())
            if position + 1 < len(tokens):
                losses.append(-log_p[tokens[position + 1]])
                others.append(-log_q[tokens[position + 1]])
    difference = np.array(others) - np.array(losses)
    ratio = math.exp(np.mean(difference))
    spread = np.std(difference, ddof=1) if len(difference) > 1 else 0.0
    return {
        "positions": len(divergences),
        "predictions": len(losses),
        "max_logit_error": max(errors),
        "logit_scale": max(scales),
        "kl": np.mean(divergences),
        "top1": np.mean(agreements),
        "reference_perplexity": math.exp(np.mean(losses)),
        "perplexity": math.exp(np.mean(others)),
        "perplexity_ratio": ratio,
        "perplexity_ratio_error": ratio * spread / math.sqrt(len(difference)),
    }


def random_window(
    random: np.random.Generator, count: int, vocabulary: int, scale: float, noise: float
) -> Window:
    reference = (scale * random.normal(size=(count, vocabulary))).astype(np.float32)
    other = (reference + noise * random.normal(size=reference.shape)).astype(np.float32)
    return reference, other, random.integers(0, vocabulary, count).tolist()


def compared(windows: list[Window]) -> dict[str, float]:
    comparison = Comparison("the first", "the second")
    for window in windows:
        comparison.update(*window)
    return comparison.summary()


@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(2, 9), min_size=1, max_size=4),
    vocabulary=st.integers(2, 40),
    scale=st.sampled_from([0.1, 3.0, 30.0]),
    noise=st.sampled_from([1e-4, 0.1, 2.0]),
    block=st.sampled_from([1, 50, 1 << 19]),
)
def test_like_the_plain_computation(
    seed: int, lengths: list[int], vocabulary: int, scale: float, noise: float, block: int
) -> None:
    random = np.random.default_rng(seed)
    windows = [random_window(random, count, vocabulary, scale, noise) for count in lengths]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "BLOCK", block)
        figures = compared(windows)
    expected = naive(windows)
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, rel=1e-5, abs=1e-11), name


def test_figures_known_by_hand() -> None:
    # p = (1/2, 1/2), q = (1/4, 3/4) at both positions; the token that follows is 1.
    reference = np.zeros((2, 2), np.float32)
    other = np.log(np.array([[1, 3], [1, 3]], np.float32))
    figures = compared([(reference, other, [0, 1])])
    assert figures == {
        "positions": 2,
        "predictions": 1,
        "max_logit_error": 1.09861,
        "logit_scale": 0.0,
        "kl": rounded(0.5 * math.log(4 / 3)),
        "top1": 0.0,
        "reference_perplexity": 2.0,
        "perplexity": 1.33333,
        "perplexity_ratio": 0.666667,
        "perplexity_ratio_error": 0.0,
    }


def test_equal_models_don_t_differ_at_all() -> None:
    logits, _, tokens = random_window(np.random.default_rng(0), 50, 1000, 10.0, 0.0)
    figures = compared([(logits, logits.copy(), tokens)])
    assert figures["max_logit_error"] == figures["kl"] == figures["perplexity_ratio_error"] == 0
    assert figures["top1"] == figures["perplexity_ratio"] == 1


def test_small_divergences_survive_large_logits() -> None:
    """KL of nearly equal distributions is half the variance of the difference: 5e-13."""
    random = np.random.default_rng(0)
    reference = random.integers(-20, 20, (4, 4096)).astype(np.float32) + 2**10
    noise = (random.integers(0, 2, reference.shape) * 2 - 1) * np.float32(2**-13)
    figures = compared([(reference, reference + noise, [1, 2, 3, 4])])
    p = np.exp(reference.astype(np.float64) - reference.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    variance = (p * noise**2).sum(axis=1) - (p * noise).sum(axis=1) ** 2
    assert figures["kl"] == pytest.approx(variance.mean() / 2, rel=1e-3)


def test_huge_logits_give_finite_figures() -> None:
    reference = np.array([[0, 3e38], [3e38, 0]], np.float32)
    figures = compared([(reference, -reference, [0, 1])])
    assert all(math.isfinite(value) for value in figures.values())
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["top1"] == 0
    assert figures["perplexity"] > 1e308


def test_figures_have_six_digits() -> None:
    windows = [random_window(np.random.default_rng(3), 20, 30, 5.0, 0.3)]
    for value in compared(windows).values():
        assert value == rounded(value)
        assert type(value) in (int, float)
    assert rounded(1 / 3) == 0.333333
    assert rounded(1234567.8) == 1234570.0
    assert bounded_exp(1e6) <= sys.float_info.max


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("whose", [0, 1])
def test_logits_that_are_no_numbers(bad: float, whose: int) -> None:
    reference, other, tokens = random_window(np.random.default_rng(0), 5, 10, 1.0, 0.1)
    (reference, other)[whose][3, 7] = bad
    name = ("the first", "the second")[whose]
    with pytest.raises(VerificationError, match=f"{name} gives logits that are not finite"):
        compared([(reference, other, tokens)])
    with pytest.raises(VerificationError, match="not finite"):
        largest_difference((reference, other)[whose], np.zeros((5, 10), np.float32), name)


def test_models_of_other_vocabularies() -> None:
    with pytest.raises(VerificationError, match=r"shape \(2, 3\), the second \(2, 4\)"):
        compared([(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32), [0, 1])])
    with pytest.raises(VerificationError, match=r"shape \(2, 3\) in place of \(2, 4\)"):
        largest_difference(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32), "it")
