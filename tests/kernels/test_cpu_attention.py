"""Our attention kernels against softmax(q k) v in float64, with every shape that can go wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402

from edgec.scheduling.kernels.cpu_attention import (  # noqa: E402
    paged_decode,
    paged_prefill,
    ragged_prefill,
)
from edgec.scheduling.kernels.cpu_attention_blocks import (  # noqa: E402
    BLOCK,
    NOTHING,
    Attention,
)

pytestmark = pytest.mark.slow

SHAPES = [
    Attention(8, 2, 64, "float32", 512),
    Attention(4, 4, 32, "float32", 256),
    Attention(6, 1, 80, "float32", 512),
    Attention(8, 2, 128, "float16", 512),
    Attention(3, 3, 24, "float16", 256),
]
TOLERANCE = {"float32": 3e-6, "float16": 2e-3}


def _compile(function: Any, shape: Attention) -> Any:
    from edgec.target import cpu_features  # noqa: PLC0415

    cpu = "x86-64-v4" if "avx512f" in cpu_features() else "x86-64-v3"
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu})
    primitive = function(shape)
    name = primitive.attrs["global_symbol"]
    return tvm.runtime.Executable(tvm.tirx.build(tvm.IRModule({name: primitive}), target))[name]


def _expected(
    shape: Attention, q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """One token ``(heads, d)`` against ``(n, kv_heads, d)``: result and log2-sum-exp2."""
    out, lse = np.zeros((shape.heads, shape.head_dim)), np.full(shape.heads, NOTHING)
    for head in range(shape.heads if len(k) else 0):
        kv = head // shape.group
        scores = k[:, kv].astype(np.float64) @ q[head].astype(np.float64) * scale
        weights = np.exp(scores - scores.max())
        out[head] = weights @ v[:, kv].astype(np.float64) / weights.sum()
        lse[head] = (scores.max() + np.log(weights.sum())) / np.log(2)
    return out, lse


class Problem:
    """Sequences with ``lengths`` keys each, of which the last ``new`` have queries."""

    def __init__(self, shape: Attention, lengths: list[int], new: list[int]) -> None:
        self.shape, self.lengths, self.new = shape, lengths, new
        self.random = np.random.default_rng(sum(lengths) + 31 * sum(new))
        self.q = self._draw(sum(new), shape.heads)
        self.k = [self._draw(length, shape.kv_heads) for length in lengths]
        self.v = [self._draw(length, shape.kv_heads) for length in lengths]
        self.scale = shape.head_dim**-0.5

    def _draw(self, rows: int, heads: int) -> np.ndarray:
        values = self.random.normal(0, 1.5, (rows, heads, self.shape.head_dim))
        return values.astype(self.shape.dtype)

    def pages(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Pages in random order; what no key fills is NaN."""
        counts = [-(-length // BLOCK) for length in self.lengths]
        total = sum(counts) + 3
        places = self.random.permutation(total)[: sum(counts)].astype(np.int32)
        shape = (total, 2, self.shape.kv_heads, BLOCK, self.shape.head_dim)
        pages = np.full(shape, np.nan, self.shape.dtype)
        indptr = np.cumsum([0, *counts]).astype(np.int32)
        for i, length in enumerate(self.lengths):
            for token in range(length):
                page = places[indptr[i] + token // BLOCK]
                pages[page, 0, :, token % BLOCK] = self.k[i][token]
                pages[page, 1, :, token % BLOCK] = self.v[i][token]
        last = np.array([(length - 1) % BLOCK + 1 for length in self.lengths], np.int32)
        return pages, indptr, places, last

    def check(self, out: Any, lse: Any, *, causal: bool, tolerance: float | None = None) -> None:
        row, tolerance = 0, tolerance or TOLERANCE[self.shape.dtype]
        for i, (length, new) in enumerate(zip(self.lengths, self.new, strict=True)):
            for token in range(new):
                seen = length - new + token + 1 if causal else length
                expected, expected_lse = _expected(
                    self.shape, self.q[row], self.k[i][:seen], self.v[i][:seen], self.scale
                )
                np.testing.assert_allclose(out[row], expected, atol=tolerance, rtol=tolerance)
                np.testing.assert_allclose(lse[row], expected_lse, atol=1e-4, rtol=1e-6)
                row += 1

    def run(self, function: Any, *arguments: Any, causal: bool | None) -> tuple[Any, Any]:
        out = tvm.runtime.tensor(np.full_like(self.q, np.nan))
        lse = tvm.runtime.tensor(np.full(self.q.shape[:2], np.nan, np.float32))
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(item)) for item in arguments]
        flags = [] if causal is None else [int(causal)]
        _compile(function, self.shape)(
            tvm.runtime.tensor(self.q), *tensors, out, lse, *flags, 0, 1.0, 1e4, self.scale
        )
        return out.numpy(), lse.numpy()


def _offsets(counts: list[int]) -> np.ndarray:
    return np.cumsum([0, *counts]).astype(np.int32)


def _zeros(count: int) -> np.ndarray:
    return np.zeros(count, np.int32)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_decode_reads_every_key_of_its_sequence(shape: Attention) -> None:
    problem = Problem(shape, [1, 15, 16, 17, 100], [1] * 5)
    pages, indptr, places, last = problem.pages()
    out, lse = problem.run(
        paged_decode, pages, indptr, places, last, _zeros(5), _zeros(5), causal=None
    )
    problem.check(out, lse, causal=False)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_paged_prefill(shape: Attention, causal: bool) -> None:
    problem = Problem(shape, [40, 3, 64, 17], [40, 1, 7, 17])
    pages, indptr, places, last = problem.pages()
    arguments = (_offsets(problem.new), pages, indptr, places, last, _zeros(4), _zeros(65))
    out, lse = problem.run(paged_prefill, *arguments, causal=causal)
    problem.check(out, lse, causal=causal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ragged_prefill(shape: Attention, causal: bool) -> None:
    lengths = [33, 1, 16, 50]
    problem = Problem(shape, lengths, lengths)
    out, lse = problem.run(
        ragged_prefill,
        _offsets(lengths),
        np.concatenate(problem.k),
        np.concatenate(problem.v),
        _offsets(lengths),
        _zeros(100),
        _zeros(4),
        causal=causal,
    )
    problem.check(out, lse, causal=causal)


def test_a_sequence_without_pages_attends_to_nothing() -> None:
    shape = SHAPES[0]
    problem = Problem(shape, [20, 0], [2, 3])
    pages, indptr, places, last = problem.pages()
    last[1] = 0
    arguments = (_offsets([2, 3]), pages, indptr, places, last, _zeros(2), _zeros(5))
    out, lse = problem.run(paged_prefill, *arguments, causal=False)
    problem.check(out, lse, causal=False)
    assert (out[2:] == 0).all()
    assert (lse[2:] == NOTHING).all()


def test_scores_far_apart_do_not_overflow() -> None:
    shape = SHAPES[0]
    problem = Problem(shape, [48], [48])
    problem.q *= 40
    out, lse = problem.run(
        ragged_prefill,
        _offsets([48]),
        problem.k[0],
        problem.v[0],
        _offsets([48]),
        _zeros(48),
        _zeros(1),
        causal=True,
    )
    assert np.isfinite(out).all()
    # Scores near 1000 are rounded to 2^-14 in float32, and so are the exponents of the weights.
    problem.check(out, lse, causal=True, tolerance=2e-4)
