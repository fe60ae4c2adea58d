"""Samplers on GPUs, as engines call them, against cumulative sums in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402

from edgec.passes.attach_samplers import AttachSamplers  # noqa: E402
from edgec.scheduling.kernels import gpu_sampling  # noqa: E402
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

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
SAMPLES = 24
# Sums of float32 shares of 1, in another order.
ROUNDING = 3e-6


def samplers(vocab: int, target: dict[str, Any]) -> RelaxFunctions:
    mod = AttachSamplers(vocab, limits(target))(tvm.IRModule())
    return RelaxFunctions(mod, target)


def distributions(vocab: int) -> Floats:
    """Peaked, with one certain token, uniform, with half of the tokens impossible, two tokens."""
    weights = np.exp(np.random.default_rng(vocab).normal(0, 3, (5, vocab)))
    weights[1] = np.arange(vocab) == vocab // 2
    weights[2] = 1
    weights[3, ::2] = 0
    weights[4, 1:-1] = 0
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def draws() -> tuple[Floats, npt.NDArray[np.int32]]:
    """Uniform numbers and rows for them. An engine's number may round to 1."""
    generator = np.random.default_rng(1)
    uniform = generator.random(SAMPLES, np.float32)
    uniform[:5], uniform[5:10], uniform[10:15] = 0, np.float32(1 - 2**-24), 1
    rows = generator.integers(0, 5, SAMPLES).astype(np.int32)
    rows[:15] = np.tile(np.arange(5), 3)
    return uniform, rows


def inverts(row: Floats, token: int, target: float) -> bool:
    """Whether the cumulative sum passes the target at this token."""
    sums = np.cumsum(row.astype(np.float64))
    before = sums[token] - row[token]
    return bool(row[token] > 0 and before - ROUNDING <= target <= sums[token] + ROUNDING)


@pytest.mark.parametrize(
    ("vocab", "target"),
    [(3, PHONE), (1003, SMALL), (4096, IPHONE), (4097, JETSON), (32_000, PHONE), (128_256, PHONE)],
)
def test_multinomial_inverts_the_cumulative_sum(vocab: int, target: dict[str, Any]) -> None:
    probs, (uniform, rows) = distributions(vocab), draws()
    functions = samplers(vocab, target)
    sampled = functions.call("multinomial_from_uniform", probs, uniform, rows)
    totals = probs.sum(-1, dtype=np.float64)
    for token, u, row in zip(sampled, uniform, rows, strict=True):
        assert inverts(probs[row], token, u * totals[row]), (token, u, row)


@pytest.mark.parametrize("top_p", [1e-5, 0.3, 0.95, 1.0])
@pytest.mark.parametrize(
    ("vocab", "target"), [(3, PHONE), (1003, SMALL), (4097, IPHONE), (128_256, PHONE)]
)
def test_top_p_samples_from_the_nucleus(vocab: int, target: dict[str, Any], top_p: float) -> None:
    probs, (uniform, rows) = distributions(vocab), draws()
    order = np.argsort(-probs, axis=1, kind="stable").astype(np.int32)
    ranked = np.take_along_axis(probs, order, 1)
    top = np.full(len(probs), top_p, np.float32)
    functions = samplers(vocab, target)
    sampled = functions.call("sample_with_top_p", ranked, order, uniform, rows, top)
    sums = np.cumsum(ranked.astype(np.float64), axis=1)
    for token, u, row in zip(sampled, uniform, rows, strict=True):
        rank = int(np.flatnonzero(order[row] == token)[0])
        ends = nucleus_ends(sums[row], top_p)
        assert any(
            rank <= end and inverts(ranked[row], rank, u * sums[row, end]) for end in ends
        ), (rank, u, row, ends)


def nucleus_ends(sums: Doubles, top_p: float) -> list[int]:
    """The nucleus' last rank; several where rounding may decide."""
    reaches = np.flatnonzero(sums >= top_p - ROUNDING)
    if not len(reaches) or top_p == 1:
        return [len(sums) - 1]
    last = int(np.flatnonzero(sums >= min(top_p + ROUNDING, sums[-1]))[0])
    return list(range(int(reaches[0]), last + 1))


def test_the_smallest_top_p_is_greedy() -> None:
    probs, (uniform, rows) = distributions(1003)[[0, 1]], draws()
    order = np.argsort(-probs, axis=1, kind="stable").astype(np.int32)
    ranked = np.take_along_axis(probs, order, 1)
    top = np.full(2, 1e-5, np.float32)
    functions = samplers(1003, PHONE)
    sampled = functions.call("sample_with_top_p", ranked, order, uniform, rows % 2, top)
    np.testing.assert_array_equal(sampled, order[rows % 2, 0])


def test_nucleus_ends_where_the_sum_reaches_top_p() -> None:
    probs = np.array([[0.25, 0.5, 0.25]], np.float32)
    order = np.array([[1, 0, 2]], np.int32)
    uniform, row = np.array([0.9, 1], np.float32), np.zeros(2, np.int32)
    for top_p, last in ((0.5, 1), (0.75, 0), (0.76, 2)):
        top = np.array([top_p], np.float32)
        functions = samplers(3, SMALL)
        ranked = np.take_along_axis(probs, order, 1)
        sampled = functions.call("sample_with_top_p", ranked, order, uniform, row, top)
        np.testing.assert_array_equal(sampled, [last] * 2)


def test_rounding_never_leads_to_an_impossible_token() -> None:
    vocab, target = 1500, SMALL
    chunks = gpu_sampling.Chunks.within(vocab, limits(target))
    probs = np.zeros((1, vocab), np.float32)
    probs[0, [7, 1100, 1200]] = 0.25, 0.25, 0.5
    # Sums above what the entries add up to: no entry passes the threshold.
    sums = np.array([[0.25, 0.8]], np.float32)
    uniform, row, out = (
        np.array([0.99], np.float32),
        np.zeros(1, np.int32),
        np.full(1, -1, np.int32),
    )
    sampled = call(gpu_sampling.sample(chunks), target, probs, sums, uniform, row, out)[-1]
    np.testing.assert_array_equal(sampled, [1200])


def test_argsort_then_probabilities_of_tokens() -> None:
    vocab = 5000
    probs, (uniform, rows) = distributions(vocab), draws()
    functions = samplers(vocab, PHONE)
    ranked, order = functions.call("argsort_probs", probs)
    expected = np.argsort(-probs, axis=1, kind="stable")
    np.testing.assert_array_equal(order, expected)
    np.testing.assert_array_equal(ranked, np.take_along_axis(probs, expected, 1))
    sampled = functions.call("multinomial_from_uniform", probs, uniform, rows)
    offsets = np.array([0, 1, 2, vocab, 4 * vocab + 4999], np.int32)
    values, top, tokens = functions.call("sampler_take_probs", probs, order, rows, sampled, offsets)
    np.testing.assert_array_equal(values, probs[rows, sampled])
    np.testing.assert_array_equal(tokens, order.reshape(-1)[offsets])
    np.testing.assert_array_equal(top, probs[offsets // vocab, tokens])


def test_no_top_probabilities_asked_for() -> None:
    probs, (_, rows) = distributions(10), draws()
    none = np.zeros(0, np.int32)
    order, sampled = np.zeros(probs.shape, np.int32), np.full(SAMPLES, 9, np.int32)
    functions = samplers(10, PHONE)
    values, top, tokens = functions.call("sampler_take_probs", probs, order, rows, sampled, none)
    np.testing.assert_array_equal(values, probs[rows, 9])
    assert top.shape == tokens.shape == (0,)


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_garbage_gives_a_token_of_the_vocabulary(value: float) -> None:
    vocab, target = 700, SMALL
    chunks = gpu_sampling.Chunks.within(vocab, limits(target))
    probs = np.full((1, vocab), value, np.float32)
    sums = np.full((1, chunks.count), value, np.float32)
    uniform, row, out = np.array([0.7], np.float32), np.zeros(1, np.int32), np.full(1, -1, np.int32)
    arguments = (probs, sums, uniform, row, out)
    sampled = call(gpu_sampling.sample(chunks), target, *arguments, checked=True)[-1]
    assert 0 <= sampled[0] < vocab  # type: ignore[index]


def test_lanes_race_for_nothing() -> None:
    vocab, target = 2500, SMALL
    chunks = gpu_sampling.Chunks.within(vocab, limits(target))
    probs, (uniform, rows) = distributions(vocab), draws()
    empty = np.zeros((5, chunks.count), np.float32)
    sums = call(gpu_sampling.chunk_sums(chunks), target, probs, empty, checked=True)[1]
    out = np.full(SAMPLES, -1, np.int32)
    arguments = (probs, sums, uniform, rows, out)
    sampled = call(gpu_sampling.sample(chunks), target, *arguments, checked=True)[-1]
    assert (np.asarray(sampled) >= 0).all()
    order = np.broadcast_to(np.arange(vocab, dtype=np.int32), probs.shape)
    top = np.full(5, 0.9, np.float32)
    arguments = (probs, order, sums, uniform, rows, top, out)
    call(gpu_sampling.sample_top_p(chunks), target, *arguments, checked=True)


@pytest.mark.parametrize("target", [IPHONE, JETSON, BROWSER], ids=lambda t: t["kind"])
def test_kernels_compile_for_every_platform(target: dict[str, Any]) -> None:
    mod = AttachSamplers(256_000, limits(target))(tvm.IRModule())
    kernels = [f for _, f in mod.functions_items() if isinstance(f, tvm.tirx.PrimFunc)]
    assert len(kernels) == 6
    for function in kernels:
        text = source(function, target)
        assert not slow_types(text)
        # Buffers, and the one that scalars are in: WebGPU has 10 for a stage where it is newest.
        assert len(function.params) <= 9
