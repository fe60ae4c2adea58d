"""The functions that engines call on logits, against the definitions in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402

from edgec.scheduling.kernels import cpu_logits  # noqa: E402
from edgec.scheduling.kernels.cpu_softmax import softmax_with_temperature  # noqa: E402

pytestmark = pytest.mark.slow

VOCAB = 1000


def _library(function: Any) -> Any:
    module = tvm.IRModule({"f": function.with_attr("global_symbol", "f")})
    return tvm.runtime.Executable(tvm.tirx.build(module, tvm.target.Target("llvm")))["f"]


def _call(function: Any, *arrays: np.ndarray) -> list[np.ndarray]:
    tensors = [tvm.runtime.tensor(array) for array in arrays]
    _library(function)(*tensors)
    return [tensor.numpy() for tensor in tensors]


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 4, (3, VOCAB)).astype(np.float32)


def test_logit_bias_is_added_to_the_named_entries(logits: np.ndarray) -> None:
    rows, tokens = np.array([0, 2, 2], np.int32), np.array([5, 999, 5], np.int32)
    bias = np.array([1.5, -100, 3], np.float32)
    expected = logits.copy()
    np.add.at(expected, (rows, tokens), bias)
    changed = _call(cpu_logits.apply_logit_bias(VOCAB), logits, rows, tokens, bias)[0]
    np.testing.assert_array_equal(changed, expected)


def test_penalties_follow_their_definitions(logits: np.ndarray) -> None:
    # Sequences 0 and 1 are rows 2 and 0 of the logits.
    sequence_rows = np.array([2, 0], np.int32)
    pairs = np.array([0, 0, 1], np.int32)
    tokens = np.array([3, 7, 3], np.int32)
    counts = np.array([1, 4, 2], np.int32)
    penalties = np.array([[0.5, 0.25, 1.5], [0.0, 0.1, 2.0]], np.float32)
    logits[2, 3], logits[2, 7], logits[0, 3] = 4.0, 1.0, -3.0
    expected = logits.copy()
    expected[2, 3] = (4.0 - 0.5 - 0.25) / 1.5
    expected[2, 7] = (1.0 - 0.5 - 4 * 0.25) * 1.5
    expected[0, 3] = (-3.0 - 2 * 0.1) * 2.0
    changed = _call(
        cpu_logits.apply_penalty(VOCAB), logits, sequence_rows, pairs, tokens, counts, penalties
    )[0]
    np.testing.assert_allclose(changed, expected, rtol=1e-6)


def test_bitmask_leaves_only_allowed_tokens(logits: np.ndarray) -> None:
    allowed = np.random.default_rng(1).random((3, VOCAB)) < 0.3
    allowed[1, 31], allowed[1, 32] = True, False  # both sides of a word's border, and the sign bit
    padded = np.zeros((3, -(-VOCAB // 32) * 32), bool)
    padded[:, :VOCAB] = allowed
    words = np.packbits(padded, axis=1, bitorder="little").view(np.int32)
    rows = np.array([1, 2], np.int32)
    expected = logits.copy()
    expected[1:][~allowed[1:]] = np.float32(cpu_logits.MASKED)
    changed = _call(cpu_logits.apply_bitmask(VOCAB), logits, rows, words)[0]
    np.testing.assert_array_equal(changed, expected)


@pytest.mark.parametrize(("vocab", "bits"), [(128_256, 128), (50_257, 256), (63, 128)])
def test_softmax_equals_float64_also_for_large_vocabularies(vocab: int, bits: int) -> None:
    rows = np.random.default_rng(2).normal(0, 3, (3, 1, vocab)).astype(np.float32)
    temperature = np.array([1.0, 0.4, 2.0], np.float32)
    softmax = softmax_with_temperature(vocab, bits)
    probs = _call(softmax, rows, temperature, np.zeros_like(rows))[2]
    scaled = rows.astype(np.float64)[:, 0] / temperature[:, None]
    exact = np.exp(scaled - scaled.max(-1, keepdims=True))
    exact /= exact.sum(-1, keepdims=True)
    # exp in float32 of arguments down to -75: 75 * 2^-23 relative, plus the sum's rounding.
    np.testing.assert_allclose(probs[:, 0], exact, rtol=2e-5, atol=1e-12)
    np.testing.assert_allclose(probs.sum(-1, dtype=np.float64), 1, rtol=2e-6)


def test_temperature_zero_shares_among_the_largest() -> None:
    rows = np.zeros((2, 1, VOCAB), np.float32)
    rows[0, 0, [4, 9]] = 3
    rows[1, 0, 1] = 0.5
    probs = _call(
        softmax_with_temperature(VOCAB, 128),
        rows,
        np.zeros(2, np.float32),
        np.full_like(rows, np.nan),
    )[2]
    expected = np.zeros_like(rows)
    expected[0, 0, [4, 9]] = 0.5
    expected[1, 0, 1] = 1
    np.testing.assert_array_equal(probs, expected)


def test_forbidden_tokens_get_nothing_at_any_temperature() -> None:
    rows = np.full((3, 1, VOCAB), cpu_logits.MASKED, np.float32)
    rows[:, 0, [7, 999]] = [20, 19]
    temperature = np.array([1e-30, 0.5, 1e3], np.float32)
    probs = _call(
        softmax_with_temperature(VOCAB, 128), rows, temperature, np.full_like(rows, np.nan)
    )[2]
    colder = np.exp(np.float64(-1) / temperature.astype(np.float64))
    expected = np.zeros_like(rows)
    expected[:, 0, 7], expected[:, 0, 999] = 1 / (1 + colder), colder / (1 + colder)
    np.testing.assert_allclose(probs, expected, rtol=1e-5)
    assert (probs[:, 0, 8:999] == 0).all()
