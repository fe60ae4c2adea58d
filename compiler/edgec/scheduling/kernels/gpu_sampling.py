"""Sampling from rows of probabilities on GPUs, by inverting their cumulative sums.

Sums of chunks are made first, by the whole device. One work-group per sample then looks for the
chunk in which the cumulative sum passes a threshold, and in that chunk for the entry. Both steps
have a fixed number of steps, whatever the probabilities are, and nothing of a row's length is kept.

An entry with probability 0 is never sampled, whatever the rounding of the sums.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.gpu_work_group import (
    Exchange,
    Limits,
    Memory,
    barrier,
    keep,
    kernel_attributes,
    launch,
    registers,
    shared,
    when,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_LANES = 256
_PER_LANE = 16
_NOT_PASSED = 1 << 30
_UNREACHED = 3e38


@dataclass(frozen=True)
class Chunks:
    """How a row of ``vocab`` entries is cut.

    Attributes:
        vocab: entries of a row.
        lanes: of a work-group, a power of two.
    """

    vocab: int
    lanes: int

    @classmethod
    def within(cls, vocab: int, limits: Limits) -> Chunks:
        """The chunks for a device."""
        return cls(vocab, limits.lanes(_LANES))

    @property
    def size(self) -> int:
        """Entries of a chunk."""
        return self.lanes * _PER_LANE

    @property
    def count(self) -> int:
        """Chunks of a row."""
        return -(-self.vocab // self.size)


def chunk_sums(chunks: Chunks) -> Any:
    """``(probs (n, v), sums (n, chunks))``."""
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            n = T.int32()
            probs = T.arg("probs", T.buffer((n, chunks.vocab), "float32"))
            sums = Memory(T.arg("sums", T.buffer((n, chunks.count), "float32")))
            with launch(chunks.lanes, chunks.count, n) as (lane, group, row):
                exchange = Exchange(lane, chunks.lanes)
                total = registers(1)
                total[0] = T.float32(0)
                for i in range(_PER_LANE):
                    place = group * chunks.size + i * chunks.lanes + lane
                    with when(place < chunks.vocab):
                        total[0] = total[0] + probs[row, place]
                result = exchange.reduce(total[0], operator.add)
                with when(lane == 0):
                    sums[row, group] = result
        return builder.get()


def sample(chunks: Chunks) -> Any:
    """``(probs (n, v), sums (n, chunks), uniform (k), sample_indices int32 (k), out int32 (k))``.

    ``out[i]`` is the first entry of row ``sample_indices[i]`` at which the cumulative sum exceeds
    ``uniform[i]``, from 0 to 1, times the row's sum; the last that isn't 0 if none does.
    """
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            n, k = T.int32(), T.int32()
            probs = T.arg("probs", T.buffer((n, chunks.vocab), "float32"))
            sums = T.arg("sums", T.buffer((n, chunks.count), "float32"))
            uniform = T.arg("uniform", T.buffer((k,), "float32"))
            sample_indices = T.arg("sample_indices", T.buffer((k,), "int32"))
            out = Memory(T.arg("sampled", T.buffer((k,), "int32")))
            with launch(chunks.lanes, k) as (lane, i):
                row = keep(sample_indices[i])
                search = _Search(chunks, lane, lambda c: sums[row, c], lambda j: probs[row, j])
                total = search.total()
                found, _ = search.first(uniform[i] * total, operator.gt)
                with when(lane == 0):
                    out[i] = found
        return builder.get()


def sample_top_p(chunks: Chunks) -> Any:
    """As :func:`sample`, from the nucleus of rows sorted in descending order.

    ``(sorted (n, v), indices int32 (n, v), sums (n, chunks), uniform (k), sample_indices int32 (k),
    top_p (n), out int32 (k))``. The nucleus of a row is the shortest beginning whose sum reaches
    ``top_p`` (https://arxiv.org/abs/1904.09751), or all of it if none does; ``out`` is looked up in
    ``indices``.
    """
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            n, k = T.int32(), T.int32()
            probs = T.arg("sorted", T.buffer((n, chunks.vocab), "float32"))
            indices = T.arg("indices", T.buffer((n, chunks.vocab), "int32"))
            sums = T.arg("sums", T.buffer((n, chunks.count), "float32"))
            uniform = T.arg("uniform", T.buffer((k,), "float32"))
            sample_indices = T.arg("sample_indices", T.buffer((k,), "int32"))
            top_p = T.arg("top_p", T.buffer((n,), "float32"))
            out = Memory(T.arg("sampled", T.buffer((k,), "int32")))
            with launch(chunks.lanes, k) as (lane, i):
                row = keep(sample_indices[i])
                search = _Search(chunks, lane, lambda c: sums[row, c], lambda j: probs[row, j])
                last, mass = search.first(top_p[row], operator.ge)
                found, _ = search.first(uniform[i] * mass, operator.gt)
                with when(lane == 0):
                    # Engines draw numbers that may round to 1: no sum exceeds the mass itself.
                    out[i] = indices[row, T.min(found, last)]
        return builder.get()


def take_probs(vocab: int, limits: Limits) -> Any:
    """Probabilities of sampled tokens and of the most likely ones.

    ``(probs (n, v), sorted_indices int32 (n, v), sample_indices int32 (k), sampled int32 (k),
    top_prob_offsets int32 (p), sampled_probs (k), top_probs (p), top_indices int32 (p))``. An offset
    is ``row * v + rank``.
    """
    lanes = limits.lanes(_LANES)
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            n, k, p = T.int32(), T.int32(), T.int32()
            probs = T.arg("probs", T.buffer((n, vocab), "float32"))
            sorted_indices = T.arg("sorted_indices", T.buffer((n, vocab), "int32"))
            sample_indices = T.arg("sample_indices", T.buffer((k,), "int32"))
            sampled = T.arg("sampled", T.buffer((k,), "int32"))
            offsets = T.arg("top_prob_offsets", T.buffer((p,), "int32"))
            sampled_probs = Memory(T.arg("sampled_probs", T.buffer((k,), "float32")))
            top_probs = Memory(T.arg("top_probs", T.buffer((p,), "float32")))
            top_indices = Memory(T.arg("top_indices", T.buffer((p,), "int32")))
            with launch(lanes, T.ceildiv(k + p, lanes)) as (lane, group):
                i = group * lanes + lane
                with when(i < k):
                    sampled_probs[i] = probs[sample_indices[i], sampled[i]]
                with when(T.And(i >= k, i < k + p)):
                    offset = keep(offsets[i - k])
                    row = keep(T.truncdiv(offset, vocab))
                    token = keep(sorted_indices[row, offset - row * vocab])
                    top_probs[i - k] = probs[row, token]
                    top_indices[i - k] = token
        return builder.get()


class _Search:
    """Finds where the cumulative sum of a row passes a threshold."""

    def __init__(
        self,
        chunks: Chunks,
        lane: Any,
        chunk_sum: Callable[[Any], Any],
        entry: Callable[[Any], Any],
    ) -> None:
        self._chunks = chunks
        self._lane = lane
        self._chunk_sum = chunk_sum
        self._entry = entry
        self._sums = Exchange(lane, chunks.lanes)
        self._places = Exchange(lane, chunks.lanes, "int32")
        self._before, self._through = shared(1), shared(1)

    def total(self) -> Any:
        """The row's sum."""
        _, _, through = self._walk(
            self._chunk_sum, self._chunks.count, T.float32(0), T.float32(_UNREACHED), operator.gt
        )
        return through

    def first(self, threshold: Any, passes: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
        """The first entry that isn't 0 at which the sum passes, and the sum there.

        If none does, the last entry that isn't 0; if there is none, entry 0.
        """
        chunks = self._chunks
        threshold = keep(threshold, "float32")
        chunk, before, _ = self._walk(
            self._chunk_sum, chunks.count, T.float32(0), threshold, passes
        )
        start = keep(chunk * chunks.size)
        count = T.min(chunks.size, chunks.vocab - start)
        place, _, through = self._walk(
            lambda i: self._entry(start + i), count, before, threshold, passes
        )
        return keep(start + place), through

    def _walk(
        self,
        load: Callable[[Any], Any],
        count: Any,
        base: Any,
        threshold: Any,
        passes: Callable[[Any, Any], Any],
    ) -> tuple[Any, Any, Any]:
        """Where ``base`` plus the sum of ``count`` values passes; the sums before and through it.

        Each lane adds up neighbours, then the lanes exchange their sums.
        """
        lane = self._lane
        most = self._chunks.count if isinstance(count, int) else self._chunks.size
        per_lane = -(-most // self._chunks.lanes)
        count = keep(count)
        value, running = registers(1), registers(1)
        running[0] = T.float32(0)
        with T.serial(0, per_lane) as i, when(lane * per_lane + i < count):
            running[0] = running[0] + load(lane * per_lane + i)
        start = keep(base + self._sums.preceding_sum(running[0]), "float32")

        # What a lane reports: the place, or if no sum passes, the last place that isn't 0, behind
        # all reports of places and in reverse.
        report = registers(1, "int32")
        report[0] = T.int32(_NOT_PASSED)
        running[0] = start
        with T.serial(0, per_lane) as i:
            place = lane * per_lane + i
            with when(place < count):
                value[0] = load(place)
                running[0] = running[0] + value[0]
                with when(T.And(value[0] > T.float32(0), report[0] >= _NOT_PASSED - most)):
                    report[0] = T.if_then_else(
                        passes(running[0], threshold), place, _NOT_PASSED - place
                    )
        best = self._places.reduce(report[0], T.min)
        found = keep(T.if_then_else(best <= _NOT_PASSED - most, best, _NOT_PASSED - best))

        # The lane that holds the place tells the sums there.
        running[0] = start
        with T.serial(0, per_lane) as i:
            place = lane * per_lane + i
            with when(place <= found):
                value[0] = T.float32(0)
                with when(place < count):
                    value[0] = load(place)
                with when(place == found):
                    self._before[0] = running[0]
                    self._through[0] = running[0] + value[0]
                running[0] = running[0] + value[0]
        barrier()
        before, through = keep(self._before[0], "float32"), keep(self._through[0], "float32")
        barrier()
        return found, before, through
