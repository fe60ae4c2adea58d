"""Our attention kernels against softmax(q k) v in float64, with every shape that can go wrong."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402

from edgec.scheduling.kernels.attention_arguments import NOTHING  # noqa: E402
from edgec.scheduling.kernels.cpu_attention import (  # noqa: E402
    paged_decode,
    paged_prefill,
    ragged_prefill,
)
from edgec.scheduling.kernels.cpu_attention_blocks import Attention  # noqa: E402
from edgec.scheduling.kernels.cpu_attention_left import FEW  # noqa: E402
from kernels.attention_problem import Problem, offsets, zeros  # noqa: E402
from kernels.cache_rows import held, notes, queries, results, room, rounded  # noqa: E402

pytestmark = pytest.mark.slow

NIGHTLY = pytest.mark.nightly
# Two of the key-value heads are a task where a token attends to pages.
BASE = Attention(16, 4, 64, "float32", 512)
HALF = Attention(8, 2, 128, "float16", 512)
SHAPES = [
    BASE,
    pytest.param(Attention(4, 4, 32, "float32", 256), marks=NIGHTLY),
    pytest.param(Attention(6, 1, 80, "float32", 512), marks=NIGHTLY),
    HALF,
    Attention(3, 3, 24, "float16", 256),
    Attention(8, 2, 64, "float16", 512, stored="int8"),
    Attention(6, 1, 80, "float32", 256, stored="int8"),
    pytest.param(Attention(4, 2, 32, "float32", 512, stored="float16"), marks=NIGHTLY),
]


@functools.cache
def _compile(function: Any, shape: Attention) -> Any:
    """A function of this CPU; kernels are compiled once for all tests."""
    from edgec.target import cpu_features  # noqa: PLC0415

    cpu = "x86-64-v4" if "avx512f" in cpu_features() else "x86-64-v3"
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu})
    primitive = function(shape)
    name = primitive.attrs["global_symbol"]
    return tvm.runtime.Executable(tvm.tirx.build(tvm.IRModule({name: primitive}), target))[name]


def _problem(shape: Attention, lengths: list[int], new: list[int]) -> Problem:
    """Random sequences whose keys and values are as the cache holds them."""
    problem = Problem(shape, lengths, new)
    problem.k, problem.v = ([rounded(shape, x) for x in part] for part in (problem.k, problem.v))
    return problem


def _pages(problem: Problem) -> tuple[np.ndarray, ...]:
    pages, *rest = problem.pages()
    return held(problem.shape, pages), *rest


def _run(
    problem: Problem,
    function: Any,
    *arguments: Any,
    causal: bool | None,
    q: np.ndarray | None = None,
) -> tuple[Any, Any]:
    """Results and log-sum-exps; ``q`` as the runtime passes it, if it isn't the problem's alone."""
    shape = problem.shape
    q = queries(shape, problem.q) if q is None else q
    out, lse = (tvm.runtime.tensor(item) for item in room(shape, len(q)))
    tensors = [tvm.runtime.tensor(np.ascontiguousarray(item)) for item in (q, *arguments)]
    _compile(function, shape)(*tensors, out, lse, *problem.scalars(causal=causal))
    q[:] = tensors[0].numpy()
    return results(shape, out.numpy(), lse.numpy())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_decode_reads_every_key_of_its_sequence(shape: Attention) -> None:
    problem = _problem(shape, [1, 15, 16, 17, 100], [1] * 5)
    pages, indptr, places, last = _pages(problem)
    out, lse = _run(
        problem, paged_decode, pages, indptr, places, last, zeros(5), zeros(5), causal=None
    )
    problem.check(out, lse, causal=False)


def test_contexts_of_several_parts_merge_the_same_on_any_number_of_threads() -> None:
    shape = BASE
    problem = _problem(shape, [513, 3, 1700, 512], [1] * 4)
    pages, indptr, places, last = _pages(problem)
    arguments = (pages, indptr, places, last, zeros(4), zeros(4))
    threads = tvm.get_global_func("runtime.config_threadpool")
    found = []
    try:
        for count in (1, 2):
            threads(1, count)
            found.append(_run(problem, paged_decode, *arguments, causal=None))
    finally:
        threads(1, 0)
    problem.check(*found[0], causal=False)
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("causal", [False, True])
def test_few_and_many_queries_against_a_long_context(causal: bool) -> None:
    """Tiles that are full, a tail of one vector, and keys of several blocks."""
    shape = BASE
    problem = _problem(shape, [200, 131, 90], [3, 70, 17])
    pages, indptr, places, last = _pages(problem)
    arguments = (offsets(problem.new), pages, indptr, places, last, zeros(3), zeros(90))
    out, lse = _run(problem, paged_prefill, *arguments, causal=causal)
    problem.check(out, lse, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_paged_prefill(shape: Attention, causal: bool) -> None:
    problem = _problem(shape, [40, 3, 64, 17], [40, 1, 7, 17])
    pages, indptr, places, last = _pages(problem)
    arguments = (offsets(problem.new), pages, indptr, places, last, zeros(4), zeros(65))
    out, lse = _run(problem, paged_prefill, *arguments, causal=causal)
    problem.check(out, lse, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ragged_prefill(shape: Attention, causal: bool) -> None:
    lengths = [33, 1, 16, 50]
    problem = _problem(shape, lengths, lengths)
    out, lse = _run(
        problem,
        ragged_prefill,
        offsets(lengths),
        held(shape, np.concatenate(problem.k)),
        held(shape, np.concatenate(problem.v)),
        offsets(lengths),
        zeros(100),
        zeros(4),
        causal=causal,
    )
    problem.check(out, lse, causal=causal)


def test_a_sequence_without_pages_attends_to_nothing() -> None:
    shape = BASE
    problem = _problem(shape, [20, 0], [2, 3])
    pages, indptr, places, last = _pages(problem)
    last[1] = 0
    arguments = (offsets([2, 3]), pages, indptr, places, last, zeros(2), zeros(5))
    out, lse = _run(problem, paged_prefill, *arguments, causal=False)
    problem.check(out, lse, causal=False)
    assert (out[2:] == 0).all()
    assert (lse[2:] == NOTHING).all()


def test_scores_far_apart_do_not_overflow() -> None:
    shape = BASE
    problem = _problem(shape, [48], [48])
    problem.q *= 40
    out, lse = _run(
        problem,
        ragged_prefill,
        offsets([48]),
        held(shape, problem.k[0]),
        held(shape, problem.v[0]),
        offsets([48]),
        zeros(48),
        zeros(1),
        causal=True,
    )
    assert np.isfinite(out).all()
    # Scores near 1000 are rounded to 2^-14 in float32, and so are the exponents of the weights.
    problem.check(out, lse, causal=True, tolerance=2e-4)


def test_sequences_of_few_tokens_with_history_are_left() -> None:
    """One by one: a prompt, guesses after a text, a fresh short prompt, a long chunk after a text."""
    shape = HALF
    new = [FEW + 1, FEW, 5, 20]
    before = np.array([40, 9, 0, 70], np.int32)
    problem = _problem(shape, new, new)
    q = queries(shape, problem.q)
    arguments = (
        offsets(new),
        held(shape, np.concatenate(problem.k)),
        held(shape, np.concatenate(problem.v)),
        offsets(new),
        zeros(sum(new)),
        before,
    )
    out, lse = _run(problem, ragged_prefill, *arguments, causal=True, q=q)
    left = np.repeat([0, 1, 0, 0], new)
    np.testing.assert_array_equal(notes(shape, q), left * (offsets(new)[1] + 1))
    assert (out[left == 1] == 0).all()
    assert (lse[left == 1] == NOTHING).all()
    assert (lse[left == 0] != NOTHING).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_left_gives_the_bits_of_single_tokens(shape: Attention) -> None:
    """Texts that end before, at and behind the ends of pages, of blocks of pages and of parts."""
    new = [5, 2, FEW, 3]
    for before in ([1, 15, 16, 31], [60, 64, 505, 511], [512, 513, 700, 17]):
        lengths = [one + more for one, more in zip(before, new, strict=True)]
        problem = _problem(shape, lengths, new)
        every = (problem.k, problem.v)
        own = [
            np.concatenate([x[-count:] for x, count in zip(part, new, strict=True)])
            for part in every
        ]
        starts = offsets(new)
        note = np.repeat(starts[:-1] + 1, new)
        # History alone is in pages.
        problem.k, problem.v = (
            [x[:count] for x, count in zip(part, before, strict=True)] for part in every
        )
        problem.lengths = before
        q = queries(shape, problem.q, (own[0], own[1]), note)
        arguments = (starts, *_pages(problem), zeros(4), problem.positions)
        out, lse = _run(problem, paged_prefill, *arguments, causal=False, q=q)
        problem.k, problem.v = every
        problem.lengths = lengths
        problem.check(out, lse, causal=True)
        # And one by one, with what came before in pages.
        for row in range(max(new)):
            rows = [i for i, count in enumerate(new) if row < count]
            single = Problem(shape, [before[i] + row + 1 for i in rows], [1] * len(rows))
            single.q = problem.q[[starts[i] + row for i in rows]]
            single.k, single.v = ([part[i][: before[i] + row + 1] for i in rows] for part in every)
            given = (*_pages(single), zeros(len(rows)), zeros(len(rows)))
            found = _run(single, paged_decode, *given, causal=None)
            for at, i in enumerate(rows):
                np.testing.assert_array_equal(out[starts[i] + row], found[0][at])
                np.testing.assert_array_equal(lse[starts[i] + row], found[1][at])


def test_shared_pages_are_seen_without_the_new_tokens_behind_later_ones() -> None:
    """A fork's first pages come in a call of their own, and what is new isn't behind those."""
    shape = HALF
    problem = _problem(shape, [32], [3])
    problem.positions[:] = [40, 41, 42]
    q = queries(shape, problem.q, (problem.k[0][:3], problem.v[0][:3]), np.ones(3))
    arguments = (offsets([3]), *_pages(problem), zeros(1), problem.positions)
    out, lse = _run(problem, paged_prefill, *arguments, causal=False, q=q)
    problem.check(out, lse, causal=False)
