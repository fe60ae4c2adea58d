"""Attention kernels for browsers against softmax(q k) v in float64; memory and barriers are checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

from edgec.models.rope import Rope  # noqa: E402
from edgec.scheduling.kernels.attention_arguments import NOTHING, Heads  # noqa: E402
from edgec.scheduling.kernels.gpu_attention import (  # noqa: E402
    paged_decode,
    paged_prefill,
    ragged_prefill,
)
from kernels.attention_problem import Problem, offsets, zeros  # noqa: E402
from kernels.gpu_functions import PHONE, call  # noqa: E402
from standin_tools import needs  # noqa: E402

pytestmark = [pytest.mark.slow, needs("clang"), needs("clang++")]

# Groups that are no power of two, heads that lanes don't share evenly, more rows than a tile has.
SHAPES = [
    Heads(8, 2, 64, "float32"),
    Heads(4, 4, 32, "float32"),
    Heads(6, 1, 80, "float32"),
    Heads(8, 2, 128, "float16"),
    Heads(3, 3, 24, "float16"),
    Heads(12, 1, 256, "float16"),
]


def _run(
    problem: Problem, function: Any, *arguments: Any, causal: bool | None, mode: int = 0
) -> tuple[Any, Any]:
    scalars = problem.scalars(causal=causal)
    scalars[-4] = mode
    tensors = [np.ascontiguousarray(item) for item in arguments]
    kernel = function(problem.shape)
    found = call(kernel, PHONE, problem.q, *tensors, *problem.results(), *scalars, checked=True)
    out, lse = found[-len(scalars) - 2 : -len(scalars)]
    return out, lse


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_decode_reads_every_key_of_its_sequence(shape: Heads) -> None:
    problem = Problem(shape, [1, 15, 64, 65, 150], [1] * 5)
    pages, indptr, places, last = problem.pages()
    arguments = (pages, indptr, places, last, zeros(5), zeros(5))
    problem.check(*_run(problem, paged_decode, *arguments, causal=None), causal=False)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_paged_prefill(shape: Heads, causal: bool) -> None:
    problem = Problem(shape, [70, 3, 64, 17], [40, 1, 7, 17])
    pages, indptr, places, last = problem.pages()
    arguments = (offsets(problem.new), pages, indptr, places, last, zeros(4), zeros(65))
    problem.check(*_run(problem, paged_prefill, *arguments, causal=causal), causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ragged_prefill(shape: Heads, causal: bool) -> None:
    lengths = [33, 1, 16, 80]
    problem = Problem(shape, lengths, lengths)
    keys, values = np.concatenate(problem.k), np.concatenate(problem.v)
    arguments = (offsets(lengths), keys, values, offsets(lengths), zeros(130), zeros(4))
    problem.check(*_run(problem, ragged_prefill, *arguments, causal=causal), causal=causal)


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize(
    ("shape", "rope"),
    [
        (SHAPES[0], Rope(10000.0, 64)),
        (SHAPES[1], Rope(500.0, 32, LLAMA3)),
        (SHAPES[2], Rope(10000.0, 80, {"rope_type": "linear", "factor": 4.0})),
    ],
    ids=str,
)
def test_ragged_prefill_rotates_where_windows_slide(shape: Heads, rope: Rope, mode: int) -> None:
    lengths, firsts = [33, 80], [5, 0]
    problem = Problem(shape, lengths, lengths)
    keys, values = np.concatenate(problem.k), np.concatenate(problem.v)
    positions = [first + np.arange(length) for first, length in zip(firsts, lengths, strict=True)]
    q_positions = np.concatenate(positions).astype(np.int32)
    arguments = (offsets(lengths), keys, values, offsets(lengths))
    found = _run(
        problem,
        lambda heads: ragged_prefill(heads, rope),
        *arguments,
        q_positions,
        np.array(firsts, np.int32),
        causal=True,
        mode=mode,
    )
    if mode:
        problem.q = rotated(problem.q, q_positions, rope)
        problem.k = [rotated(k, p, rope) for k, p in zip(problem.k, positions, strict=True)]
    # Angles are products of positions and frequencies in float32.
    problem.check(*found, causal=True, tolerance=2e-5)


def rotated(x: np.ndarray, positions: np.ndarray, rope: Rope) -> np.ndarray:
    angles = positions[:, None, None] * np.array(rope.inverse_frequencies())
    low, high = np.split(x.astype(np.float64), 2, axis=-1)
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.concatenate([low * cosine - high * sine, high * cosine + low * sine], axis=-1)


def test_a_sequence_without_pages_attends_to_nothing() -> None:
    problem = Problem(SHAPES[0], [20, 0], [2, 3])
    pages, indptr, places, last = problem.pages()
    last[1] = 0
    arguments = (offsets([2, 3]), pages, indptr, places, last, zeros(2), zeros(5))
    out, lse = _run(problem, paged_prefill, *arguments, causal=False)
    problem.check(out, lse, causal=False)
    assert (out[2:] == 0).all()
    assert (lse[2:] == NOTHING).all()


def test_scores_far_apart_do_not_overflow() -> None:
    problem = Problem(SHAPES[0], [80], [80])
    problem.q *= 40
    arguments = (offsets([80]), problem.k[0], problem.v[0], offsets([80]), zeros(80), zeros(1))
    out, lse = _run(problem, ragged_prefill, *arguments, causal=True)
    assert np.isfinite(out).all()
    # Scores near 1000 are rounded to 2^-14 in float32, and so are the exponents of the weights.
    problem.check(out, lse, causal=True, tolerance=2e-4)
