"""GPU kernels for logits: softmax, bias, penalties, grammar mask, against their definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402

from edgec.passes.attach_logit_functions import AttachLogitFunctions  # noqa: E402
from edgec.scheduling.kernels import gpu_logits  # noqa: E402
from edgec.scheduling.kernels.cpu_logits import MASKED  # noqa: E402
from kernels.gpu_functions import (  # noqa: E402
    BROWSER,
    IPHONE,
    JETSON,
    PHONE,
    SMALL,
    RelaxFunctions,
    call,
    limits,
    slow_types,
    source,
)
from standin_tools import needs  # noqa: E402

pytestmark = [pytest.mark.slow, needs("clang"), needs("clang++")]

VOCAB = 1003
Floats = npt.NDArray[np.float32]


@pytest.fixture
def logits() -> Floats:
    return np.random.default_rng(0).normal(0, 4, (3, VOCAB)).astype(np.float32)


def softmax(logits: Floats, temperature: list[float], target: dict[str, Any]) -> Floats:
    vocab = logits.shape[-1]
    kernels = gpu_logits.logit_kernels(vocab, limits(target))
    functions = RelaxFunctions(AttachLogitFunctions(vocab, kernels)(tvm.IRModule()), target)
    result: Floats = functions.call(
        "softmax_with_temperature", logits[:, None], np.array(temperature, np.float32)
    )
    assert result.shape == (len(logits), 1, vocab)
    return result[:, 0]


def exact(logits: Floats, temperature: list[float]) -> npt.NDArray[np.float64]:
    scaled = logits.astype(np.float64) / np.array(temperature)[:, None]
    weights = np.exp(scaled - scaled.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.mark.parametrize("vocab", [1, 5, VOCAB, 4096, 32_000, 128_256])
@pytest.mark.parametrize("target", [PHONE, SMALL, IPHONE, JETSON], ids=lambda t: t["kind"])
def test_softmax_equals_float64(vocab: int, target: dict[str, Any]) -> None:
    rows = np.random.default_rng(2).normal(0, 3, (3, vocab)).astype(np.float32)
    temperature = [1.0, 0.4, 2.0]
    probs = softmax(rows, temperature, target)
    # The argument of exp is at most 13 * 2 / 0.4 = 65 where a probability counts: its rounding, and
    # that of the temperature's reciprocal, give 65 * 2^-23 relative.
    np.testing.assert_allclose(probs, exact(rows, temperature), rtol=2e-5, atol=1e-12)
    np.testing.assert_allclose(probs.sum(-1, dtype=np.float64), 1, rtol=2e-6)


@pytest.mark.parametrize("masked", [-np.inf, MASKED])
def test_masked_tokens_have_no_share(masked: float) -> None:
    vocab = 3001
    logits = np.random.default_rng(0).normal(0, 4, (3, vocab)).astype(np.float32)
    logits[:, ::3] = masked
    logits[1, :2500] = masked  # more than one work-group's chunk
    probs = softmax(logits, [1.0, 0.4, 0.0], SMALL)
    assert not probs[logits == masked].any()
    np.testing.assert_allclose(probs[:2], exact(logits, [1, 0.4, 1])[:2], rtol=2e-5, atol=1e-12)


def test_only_differences_of_logits_count(logits: Floats) -> None:
    # The largest is far below what fills the end of a chunk, were that zero.
    shifted = logits - np.float32(1024)
    probs = softmax(shifted, [1.0, 0.4, 2.0], SMALL)
    np.testing.assert_allclose(probs, exact(shifted, [1.0, 0.4, 2.0]), rtol=2e-5, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 1e-38, 1e-20])
def test_temperature_zero_shares_among_the_largest(temperature: float) -> None:
    rows = np.zeros((2, VOCAB), np.float32)
    rows[0, [4, 900]] = 3
    rows[1, 1] = 0.5
    expected = np.zeros_like(rows)
    expected[0, [4, 900]] = 0.5
    expected[1, 1] = 1
    np.testing.assert_array_equal(softmax(rows, [temperature] * 2, PHONE), expected)


def test_logit_bias_is_added_to_the_named_entries(logits: Floats) -> None:
    rows, tokens = np.array([0, 2, 2], np.int32), np.array([5, 999, 5], np.int32)
    bias = np.array([1.5, -100, 3], np.float32)
    expected = logits.copy()
    np.add.at(expected, (rows, tokens), bias)
    kernel = gpu_logits.apply_logit_bias(VOCAB, limits(PHONE))
    changed = call(kernel, PHONE, logits, rows, tokens, bias, checked=True)[0]
    np.testing.assert_array_equal(changed, expected)


def test_penalties_follow_their_definitions(logits: Floats) -> None:
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
    kernel = gpu_logits.apply_penalty(VOCAB, limits(PHONE))
    arguments = (logits, sequence_rows, pairs, tokens, counts, penalties)
    changed = call(kernel, PHONE, *arguments, checked=True)[0]
    np.testing.assert_allclose(changed, expected, rtol=1e-6)


def test_bitmask_leaves_only_allowed_tokens(logits: Floats) -> None:
    allowed = np.random.default_rng(1).random((3, VOCAB)) < 0.3
    allowed[1, 31], allowed[1, 32] = True, False  # both sides of a word's border, and the sign bit
    padded = np.zeros((3, -(-VOCAB // 32) * 32), bool)
    padded[:, :VOCAB] = allowed
    words = np.packbits(padded, axis=1, bitorder="little").view(np.int32)
    rows = np.array([1, 2], np.int32)
    expected = logits.copy()
    expected[1:][~allowed[1:]] = np.float32(MASKED)
    kernel = gpu_logits.apply_bitmask(VOCAB, limits(SMALL))
    changed = call(kernel, SMALL, logits, rows, words, checked=True)[0]
    # Kernel text has seven digits of a number.
    np.testing.assert_allclose(changed, expected, rtol=1e-6)


@pytest.mark.parametrize("target", [IPHONE, JETSON, BROWSER], ids=lambda t: t["kind"])
def test_kernels_compile_for_every_platform(target: dict[str, Any]) -> None:
    kernels = gpu_logits.logit_kernels(128_256, limits(target))
    for function in (*kernels.in_place, *(kernel for _, kernel in kernels.softmax)):
        assert not slow_types(source(function, target))
