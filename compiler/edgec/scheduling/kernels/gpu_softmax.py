"""Softmax over the vocabulary on GPUs.

A row is cut into chunks, so that one sequence occupies the whole device: the first kernel reduces
every chunk, the second combines a row's chunks, which are few, in every work-group that needs
them, and writes the probabilities. Logits are read twice and probabilities written once.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.gpu_work_group import (
    Exchange,
    Limits,
    Memory,
    kernel_attributes,
    launch,
    registers,
    when,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LANES = 256
_PER_LANE = 16
_LOWEST = -3.4028234663852886e38
_COLDEST = 1e-30
"""Close to the lowest temperature whose reciprocal is a float32."""


def softmax_with_temperature(vocab: int, limits: Limits) -> tuple[tuple[str, Any], ...]:
    """See :class:`edgec.scheduling.kernels.logits.LogitKernels`.

    Temperature 0 gives the limit: equal shares for the largest entries, 0 for all others.
    """
    chunks = _Chunks(vocab, limits)
    return ("softmax_partials", _partials(chunks)), ("softmax_combine", _combine(chunks))


class _Chunks:
    """How a row is cut, and how a work-group walks over a chunk."""

    def __init__(self, vocab: int, limits: Limits) -> None:
        self.vocab = vocab
        self.lanes = limits.lanes(_LANES)
        self.vector = limits.vector_lanes if vocab % limits.vector_lanes == 0 else 1
        self.size = self.lanes * _PER_LANE
        self.count = -(-vocab // self.size)

    def places(self, group: Any, lane: Any) -> Iterator[tuple[int, Any]]:
        """Each vector of a lane that lies in the row: its first register, its place in the row."""
        for register in range(0, _PER_LANE, self.vector):
            place = group * self.size + register * self.lanes + lane * self.vector
            with when(place < self.vocab):
                yield register, place

    def load(self, logits: Memory, row: Any, group: Any, lane: Any) -> Memory:
        """A lane's logits; the lowest number stands for minus infinity and fills the end."""
        x = registers(_PER_LANE)
        for i in range(_PER_LANE):
            x[i] = T.float32(_LOWEST)
        for register, place in self.places(group, lane):
            values = logits.vector((row, 0, place), self.vector)
            x.set_vector(register, values, self.vector)
        for i in range(_PER_LANE):
            x[i] = T.max(x[i], T.float32(_LOWEST))
        return x


def _partials(chunks: _Chunks) -> Any:
    """``(n, chunks, 2)``: each chunk's largest logit, and the sum of its weights."""
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            n = T.int32()
            logits = Memory(T.arg("logits", T.buffer((n, 1, chunks.vocab), "float32")))
            temperature = T.arg("temperature", T.buffer((n,), "float32"))
            partials = Memory(T.arg("partials", T.buffer((n, chunks.count, 2), "float32")))
            with launch(chunks.lanes, chunks.count, n) as (lane, group, row):
                exchange = Exchange(lane, chunks.lanes)
                x = chunks.load(logits, row, group, lane)
                best = registers(1)
                best[0] = x[0]
                for i in range(1, _PER_LANE):
                    best[0] = T.max(best[0], x[i])
                top = exchange.reduce(best[0], T.max)
                weight = _weights(temperature[row], top)
                total = registers(1)
                total[0] = T.float32(0)
                for register, _ in chunks.places(group, lane):
                    for i in range(register, register + chunks.vector):
                        total[0] = total[0] + weight(x[i])
                chunk_total = exchange.reduce(total[0], operator.add)
                with when(lane == 0):
                    partials[row, group, 0] = top
                    partials[row, group, 1] = chunk_total
        return builder.get()


def _combine(chunks: _Chunks) -> Any:
    """The probabilities ``(n, 1, v)``."""
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            n = T.int32()
            logits = Memory(T.arg("logits", T.buffer((n, 1, chunks.vocab), "float32")))
            temperature = T.arg("temperature", T.buffer((n,), "float32"))
            partials = Memory(T.arg("partials", T.buffer((n, chunks.count, 2), "float32")))
            probs = Memory(T.arg("probs", T.buffer((n, 1, chunks.vocab), "float32")))
            with launch(chunks.lanes, chunks.count, n) as (lane, group, row):
                exchange = Exchange(lane, chunks.lanes)
                x = chunks.load(logits, row, group, lane)
                best, total = registers(1), registers(1)
                best[0] = T.float32(_LOWEST)
                for chunk in _mine(chunks, lane):
                    best[0] = T.max(best[0], partials[row, chunk, 0])
                top = exchange.reduce(best[0], T.max)
                weight = _weights(temperature[row], top)
                total[0] = T.float32(0)
                for chunk in _mine(chunks, lane):
                    share = partials[row, chunk, 1] * weight(partials[row, chunk, 0])
                    total[0] = total[0] + share
                scale = registers(1)
                scale[0] = T.float32(1) / exchange.reduce(total[0], operator.add)
                for i in range(_PER_LANE):
                    x[i] = weight(x[i]) * scale[0]
                for register, place in chunks.places(group, lane):
                    values = x.vector(register, chunks.vector)
                    probs.set_vector((row, 0, place), values, chunks.vector)
        return builder.get()


def _mine(chunks: _Chunks, lane: Any) -> Iterator[Any]:
    """A lane's share of a row's chunks."""
    for first in range(0, chunks.count, chunks.lanes):
        with when(first + lane < chunks.count):
            yield first + lane


def _weights(temperature: Any, top: Any) -> Callable[[Any], Any]:
    """``exp((x - top) / temperature)``; at the coldest it is 1 for the largest and 0 below."""
    inverse = registers(1)
    inverse[0] = T.float32(1) / T.max(temperature, T.float32(_COLDEST))
    return lambda x: T.exp((x - top) * inverse[0])
