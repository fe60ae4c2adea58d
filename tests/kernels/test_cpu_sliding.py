"""Our attention kernels where windows slide, against the definition in float64.

Keys lie in the cache as they were projected, and positions count what is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402

from edgec.models.rope import Rope  # noqa: E402
from edgec.scheduling.kernels.attention_arguments import NOTHING  # noqa: E402
from edgec.scheduling.kernels.cpu_attention import (  # noqa: E402
    ragged_prefill,
    sliding_decode,
    sliding_prefill,
)
from edgec.scheduling.kernels.cpu_attention_blocks import BLOCK, Attention  # noqa: E402
from kernels.cache_rows import held, queries, results, room, rounded  # noqa: E402

pytestmark = pytest.mark.slow

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHAPES = [
    Attention(8, 2, 64, "float32", 512, Rope(10000.0, 64)),
    Attention(4, 4, 32, "float32", 256, Rope(500.0, 32, LLAMA3)),
    pytest.param(Attention(6, 1, 80, "float16", 512, Rope(10000.0, 80)), marks=pytest.mark.nightly),
    Attention(3, 3, 24, "float32", 512, Rope(10000.0, 24, {"rope_type": "linear", "factor": 4.0})),
    Attention(8, 2, 64, "float16", 512, Rope(10000.0, 64), stored="int8"),
    Attention(2, 1, 20, "float32", 256, Rope(10000.0, 20), stored="int8"),
]
# Angles are products of positions and frequencies in float32.
TOLERANCE = {"float32": 2e-5, "float16": 2e-3}


@dataclass
class Sequence:
    """Tokens that came, of which the first ``sinks`` and the latest of a window are kept.

    Attributes:
        appended: how many came.
        window: tokens that are kept once there are more; None to keep all.
        sinks: of them, the first ones.
        new: tokens with a query, after those that are kept.
    """

    appended: int
    window: int | None
    sinks: int
    new: int = 1

    @property
    def slid(self) -> bool:
        return self.window is not None and self.appended > self.window

    @property
    def kept(self) -> list[int]:
        if not self.slid:
            return list(range(self.appended))
        latest = self.window - self.sinks
        return [*range(self.sinks), *range(self.appended - latest, self.appended)]

    @property
    def offset(self) -> int:
        """Place of the first of the latest tokens, as the runtime keeps it: pages of tokens that
        left are taken out, but for those of the first ones."""
        if not self.slid:
            return 0
        first_kept = self.appended - (self.window - self.sinks)
        sink_pages = -(-self.sinks // BLOCK)
        if first_kept // BLOCK < sink_pages:
            return first_kept
        return sink_pages * BLOCK + first_kept % BLOCK

    @property
    def places(self) -> list[int]:
        sinks = self.sinks if self.slid else 0
        return [*range(sinks), *range(self.offset, self.offset + len(self.kept) - sinks)]


SEQUENCES = [
    Sequence(5, 40, 4),
    Sequence(40, 40, 4),
    Sequence(41, 40, 4),
    Sequence(75, 40, 4),
    Sequence(200, 64, 0),
    Sequence(201, 64, 17),
    Sequence(300, 100, 16),
    Sequence(33, None, 0),
]


def rotate(rope: Rope, x: np.ndarray, position: int) -> np.ndarray:
    """``(heads, d)`` in float64, written after RoFormer's definition as transformers pairs it."""
    half = rope.rotary_dim // 2
    angle = position * np.array(rope.inverse_frequencies())
    turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag], axis=1)


class Problem:
    """Sequences with random queries, keys and values."""

    def __init__(self, shape: Attention, sequences: list[Sequence]) -> None:
        self.shape, self.sequences = shape, sequences
        self.random = np.random.default_rng(7)
        self.rows = sum(item.new for item in sequences)
        self.q = self._draw(self.rows, shape.heads)
        self.k = [self._draw(item.appended, shape.kv_heads) for item in sequences]
        self.v = [self._draw(item.appended, shape.kv_heads) for item in sequences]
        self.new_k = self._draw(self.rows, shape.kv_heads)
        self.new_v = self._draw(self.rows, shape.kv_heads)
        self.scale = shape.head_dim**-0.5
        self.indptr = np.cumsum([0, *(item.new for item in sequences)]).astype(np.int32)
        kept = np.array([len(item.kept) for item in sequences], np.int32)
        self.kept = kept
        own = [np.arange(item.new) + len(item.kept) for item in sequences]
        self.positions = np.concatenate(own).astype(np.int32)

    def _draw(self, rows: int, heads: int) -> np.ndarray:
        values = self.random.normal(0, 1.5, (rows, heads, self.shape.head_dim))
        values = values.astype(self.shape.dtype)
        return values if heads == self.shape.heads else rounded(self.shape, values)

    def pages(self) -> tuple[np.ndarray, ...]:
        """Pages in random order; what no kept key fills is NaN."""
        counts = [-(-(max(item.places, default=-1) + 1) // BLOCK) for item in self.sequences]
        total = sum(counts) + 3
        order = self.random.permutation(total)[: sum(counts)].astype(np.int32)
        shape = (total, 2, self.shape.kv_heads, BLOCK, self.shape.head_dim)
        pages = np.full(shape, np.nan, self.k[0].dtype)
        indptr = np.cumsum([0, *counts]).astype(np.int32)
        info = np.zeros((3, len(counts)), np.int32)
        for i, item in enumerate(self.sequences):
            for token, place in zip(item.kept, item.places, strict=True):
                page = order[indptr[i] + place // BLOCK]
                pages[page, 0, :, place % BLOCK] = self.k[i][token]
                pages[page, 1, :, place % BLOCK] = self.v[i][token]
            end = max(item.places, default=-1)
            info[:, i] = end % BLOCK + 1, item.offset, item.sinks if item.slid else 0
        return held(self.shape, pages), indptr, order, info

    def expected(
        self, row: int, k: np.ndarray, v: np.ndarray, first: int | None
    ) -> tuple[Any, Any]:
        """A query against keys of which the first has the position ``first``; None: as they are."""
        rope, shape = self.shape.rope, self.shape
        assert rope is not None
        q, keys = self.q[row].astype(np.float64), k.astype(np.float64)
        if first is not None:
            q = rotate(rope, q, int(self.positions[row]))
            keys = np.stack([rotate(rope, key, first + i) for i, key in enumerate(keys)])
        out, lse = np.zeros((shape.heads, shape.head_dim)), np.full(shape.heads, NOTHING)
        for head in range(shape.heads):
            scores = keys[:, head // shape.group] @ q[head] * self.scale
            weights = np.exp(scores - scores.max())
            out[head] = weights @ v[:, head // shape.group].astype(np.float64) / weights.sum()
            lse[head] = (scores.max() + np.log(weights.sum())) / np.log(2)
        return out, lse

    def run(self, function: Any, *arguments: Any, flags: tuple[int, ...]) -> tuple[Any, Any]:
        out, lse = (tvm.runtime.tensor(item) for item in room(self.shape, self.rows))
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(item)) for item in arguments]
        compiled(function, self.shape)(
            tvm.runtime.tensor(queries(self.shape, self.q)),
            *tensors,
            out,
            lse,
            *flags,
            1.0,
            1e4,
            self.scale,
        )
        return results(self.shape, out.numpy(), lse.numpy())

    def check(self, row: int, got: tuple[Any, Any], wanted: tuple[Any, Any]) -> None:
        tolerance = TOLERANCE[self.shape.dtype]
        np.testing.assert_allclose(got[0][row], wanted[0], atol=tolerance, rtol=tolerance)
        np.testing.assert_allclose(got[1][row], wanted[1], atol=10 * tolerance, rtol=1e-5)


def compiled(function: Any, shape: Attention) -> Any:
    from edgec.target import cpu_features  # noqa: PLC0415

    cpu = "x86-64-v4" if "avx512f" in cpu_features() else "x86-64-v3"
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu})
    primitive = function(shape)
    name = primitive.attrs["global_symbol"]
    return tvm.runtime.Executable(tvm.tirx.build(tvm.IRModule({name: primitive}), target))[name]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_decode_sees_what_is_kept(shape: Attention) -> None:
    problem = Problem(shape, SEQUENCES)
    zeros = np.zeros(len(SEQUENCES), np.int32)
    got = problem.run(sliding_decode, *problem.pages(), zeros, problem.positions, flags=(1,))
    for row, item in enumerate(SEQUENCES):
        k, v = problem.k[row][item.kept], problem.v[row][item.kept]
        problem.check(row, got, problem.expected(row, k, v, 0))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_prefill_sees_what_is_kept(shape: Attention) -> None:
    sequences = [
        Sequence(75, 40, 4, new=20),
        Sequence(201, 64, 17, new=1),
        Sequence(9, 64, 4, new=3),
    ]
    problem = Problem(shape, sequences)
    arguments = (problem.indptr, *problem.pages(), np.zeros(3, np.int32), problem.positions)
    got = problem.run(sliding_prefill, *arguments, flags=(0, 1))
    row = 0
    for i, item in enumerate(sequences):
        for _ in range(item.new):
            k, v = problem.k[i][item.kept], problem.v[i][item.kept]
            problem.check(row, got, problem.expected(row, k, v, 0))
            row += 1


def test_a_sequence_without_pages_sees_nothing() -> None:
    problem = Problem(SHAPES[0], [Sequence(20, None, 0, new=2), Sequence(0, None, 0, new=3)])
    pages, indptr, order, info = problem.pages()
    arguments = (problem.indptr, pages, indptr, order, info, np.zeros(2, np.int32))
    out, lse = problem.run(sliding_prefill, *arguments, problem.positions, flags=(0, 1))
    assert np.isfinite(out[:2]).all()
    assert (out[2:] == 0).all()
    assert (lse[2:] == NOTHING).all()


@pytest.mark.parametrize("inline", [0, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_new_tokens_see_each_other(shape: Attention, inline: int) -> None:
    # Few tokens behind others would be left to the kernel for pages.
    short = Sequence(3 * inline, None, 0)
    sequences = [Sequence(100, None, 0, new=37), short, Sequence(0, None, 0, new=16)]
    problem = Problem(shape, sequences)
    new = (held(shape, part) for part in (problem.new_k, problem.new_v))
    arguments = (problem.indptr, *new, problem.indptr, problem.positions)
    got = problem.run(ragged_prefill, *arguments, problem.kept, flags=(1, inline))
    row = 0
    for i, item in enumerate(sequences):
        for token in range(item.new):
            seen = slice(problem.indptr[i], problem.indptr[i] + token + 1)
            first = int(problem.kept[i]) if inline else None
            wanted = problem.expected(row, problem.new_k[seen], problem.new_v[seen], first)
            problem.check(row, got, wanted)
            row += 1


def test_far_positions_keep_their_precision() -> None:
    shape = SHAPES[0]
    sequences = [Sequence(9000, 8192, 4)]
    problem = Problem(shape, sequences)
    got = problem.run(
        sliding_decode, *problem.pages(), np.zeros(1, np.int32), problem.positions, flags=(1,)
    )
    kept = sequences[0].kept
    wanted = problem.expected(0, problem.k[0][kept], problem.v[0][kept], 0)
    np.testing.assert_allclose(got[0][0], wanted[0], atol=2e-3, rtol=2e-3)
