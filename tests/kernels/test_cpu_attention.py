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
from kernels.attention_problem import Problem, offsets, zeros  # noqa: E402

pytestmark = pytest.mark.slow

SHAPES = [
    Attention(8, 2, 64, "float32", 512),
    Attention(4, 4, 32, "float32", 256),
    Attention(6, 1, 80, "float32", 512),
    Attention(8, 2, 128, "float16", 512),
    Attention(3, 3, 24, "float16", 256),
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


def _run(problem: Problem, function: Any, *arguments: Any, causal: bool | None) -> tuple[Any, Any]:
    out, lse = (tvm.runtime.tensor(item) for item in problem.results())
    tensors = [tvm.runtime.tensor(np.ascontiguousarray(item)) for item in arguments]
    _compile(function, problem.shape)(
        tvm.runtime.tensor(problem.q), *tensors, out, lse, *problem.scalars(causal=causal)
    )
    return out.numpy(), lse.numpy()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_decode_reads_every_key_of_its_sequence(shape: Attention) -> None:
    problem = Problem(shape, [1, 15, 16, 17, 100], [1] * 5)
    pages, indptr, places, last = problem.pages()
    out, lse = _run(
        problem, paged_decode, pages, indptr, places, last, zeros(5), zeros(5), causal=None
    )
    problem.check(out, lse, causal=False)


def test_contexts_of_several_parts_merge_the_same_on_any_number_of_threads() -> None:
    shape = SHAPES[0]
    problem = Problem(shape, [513, 3, 1700, 512], [1] * 4)
    pages, indptr, places, last = problem.pages()
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
    shape = SHAPES[0]
    problem = Problem(shape, [200, 131, 90], [3, 70, 17])
    pages, indptr, places, last = problem.pages()
    arguments = (offsets(problem.new), pages, indptr, places, last, zeros(3), zeros(90))
    out, lse = _run(problem, paged_prefill, *arguments, causal=causal)
    problem.check(out, lse, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_paged_prefill(shape: Attention, causal: bool) -> None:
    problem = Problem(shape, [40, 3, 64, 17], [40, 1, 7, 17])
    pages, indptr, places, last = problem.pages()
    arguments = (offsets(problem.new), pages, indptr, places, last, zeros(4), zeros(65))
    out, lse = _run(problem, paged_prefill, *arguments, causal=causal)
    problem.check(out, lse, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ragged_prefill(shape: Attention, causal: bool) -> None:
    lengths = [33, 1, 16, 50]
    problem = Problem(shape, lengths, lengths)
    out, lse = _run(
        problem,
        ragged_prefill,
        offsets(lengths),
        np.concatenate(problem.k),
        np.concatenate(problem.v),
        offsets(lengths),
        zeros(100),
        zeros(4),
        causal=causal,
    )
    problem.check(out, lse, causal=causal)


def test_a_sequence_without_pages_attends_to_nothing() -> None:
    shape = SHAPES[0]
    problem = Problem(shape, [20, 0], [2, 3])
    pages, indptr, places, last = problem.pages()
    last[1] = 0
    arguments = (offsets([2, 3]), pages, indptr, places, last, zeros(2), zeros(5))
    out, lse = _run(problem, paged_prefill, *arguments, causal=False)
    problem.check(out, lse, causal=False)
    assert (out[2:] == 0).all()
    assert (lse[2:] == NOTHING).all()


def test_scores_far_apart_do_not_overflow() -> None:
    shape = SHAPES[0]
    problem = Problem(shape, [48], [48])
    problem.q *= 40
    out, lse = _run(
        problem,
        ragged_prefill,
        offsets([48]),
        problem.k[0],
        problem.v[0],
        offsets([48]),
        zeros(48),
        zeros(1),
        causal=True,
    )
    assert np.isfinite(out).all()
    # Scores near 1000 are rounded to 2^-14 in float32, and so are the exponents of the weights.
    problem.check(out, lse, causal=True, tolerance=2e-4)
