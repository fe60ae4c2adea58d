"""Attention over random keys, and what has to come of it, in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.ir.load import load_tvm

load_tvm()

from edgec.models.kv_cache import PAGE_SIZE as BLOCK  # noqa: E402
from edgec.scheduling.kernels.attention_arguments import NOTHING  # noqa: E402

if TYPE_CHECKING:
    from edgec.scheduling.kernels.attention_arguments import Heads

TOLERANCE = {"float32": 5e-6, "float16": 2e-3}


def _expected(
    shape: Heads, q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float
) -> tuple[np.ndarray, np.ndarray]:
    """One token ``(heads, d)`` against ``(n, kv_heads, d)``: result and log2-sum-exp2."""
    cap = shape.soft_cap
    out, lse = np.zeros((shape.heads, shape.head_dim)), np.full(shape.heads, NOTHING)
    for head in range(shape.heads if len(k) else 0):
        kv = head // shape.group
        scores = k[:, kv].astype(np.float64) @ q[head].astype(np.float64) * scale
        scores = scores if cap is None else cap * np.tanh(scores / cap)
        weights = np.exp(scores - scores.max())
        out[head] = weights @ v[:, kv].astype(np.float64) / weights.sum()
        lse[head] = (scores.max() + np.log(weights.sum())) / np.log(2)
    return out, lse


class Problem:
    """Sequences with ``lengths`` keys each, of which the last ``new`` have queries.

    With ``windows`` no token sees a key ``shape.window`` or more positions before its own;
    ``firsts`` are the positions of the first keys, and ``positions`` may be set to other ones.
    """

    def __init__(
        self,
        shape: Heads,
        lengths: list[int],
        new: list[int],
        *,
        firsts: list[int] | None = None,
        windows: bool = False,
    ) -> None:
        self.shape, self.lengths, self.new = shape, lengths, new
        self.random = np.random.default_rng(sum(lengths) + 31 * sum(new))
        self.q = self._draw(sum(new), shape.heads)
        self.k = [self._draw(length, shape.kv_heads) for length in lengths]
        self.v = [self._draw(length, shape.kv_heads) for length in lengths]
        self.scale = shape.head_dim**-0.5
        self.windows = windows
        self.firsts = np.array(firsts or [0] * len(lengths), np.int32)
        self.positions = np.concatenate(
            [
                first + np.arange(length - count, length)
                for first, length, count in zip(self.firsts, lengths, new, strict=True)
            ]
        ).astype(np.int32)

    def _draw(self, rows: int, heads: int) -> np.ndarray:
        values = self.random.normal(0, 1.5, (rows, heads, self.shape.head_dim))
        return values.astype(self.shape.dtype)

    def pages(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Pages in random order; what no key fills is NaN."""
        counts = [-(-length // BLOCK) for length in self.lengths]
        total = sum(counts) + 3
        places = self.random.permutation(total)[: sum(counts)].astype(np.int32)
        shape = (total, 2, self.shape.kv_heads, BLOCK, self.shape.head_dim)
        pages = np.full(shape, np.nan, self.k[0].dtype)
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
                seen = slice(self._first(row, i), length - new + token + 1 if causal else length)
                expected, expected_lse = _expected(
                    self.shape, self.q[row], self.k[i][seen], self.v[i][seen], self.scale
                )
                np.testing.assert_allclose(out[row], expected, atol=tolerance, rtol=tolerance)
                np.testing.assert_allclose(lse[row], expected_lse, atol=1e-4, rtol=1e-6)
                row += 1

    def _first(self, row: int, sequence: int) -> int:
        if not self.windows:
            return 0
        assert self.shape.window is not None
        return max(0, int(self.positions[row] - self.firsts[sequence]) - self.shape.window + 1)

    def results(self) -> tuple[np.ndarray, np.ndarray]:
        """Room for output and log-sum-exp."""
        return np.full_like(self.q, np.nan), np.full(self.q.shape[:2], np.nan, np.float32)

    def scalars(self, *, causal: bool | None) -> list[int | float]:
        """The trailing arguments; those of decoding for None."""
        scale = -self.scale if self.windows else self.scale
        return [*([] if causal is None else [int(causal)]), 0, 1.0, 1e4, scale]


def offsets(counts: list[int]) -> np.ndarray:
    return np.cumsum([0, *counts]).astype(np.int32)


def zeros(count: int) -> np.ndarray:
    return np.zeros(count, np.int32)
