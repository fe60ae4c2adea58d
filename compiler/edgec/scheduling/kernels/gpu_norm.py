"""RMS normalization of rows on GPUs, alone or together with the residual addition before it.

One work-group per row. A residual sum is rounded to the dtype of the hidden states first, as if it
had been stored and read again, so the fused kernel gives what two kernels would. Squares, their sum
and the scaling are float32.
"""

from __future__ import annotations

import json
import operator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.gpu_work_group import (
    Exchange,
    Limits,
    Memory,
    keep,
    kernel_attributes,
    launch,
    power_of_two,
    registers,
    when,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NORM = "edgec.norm"
"""Attribute of a norm's kernel: what it computes, as :meth:`Norm.to_json` says it."""

_LANES = 256
_MOST_REGISTERS = 32


@dataclass(frozen=True)
class Norm:
    """One kernel's parameters.

    Attributes:
        size: entries of a row.
        dtype: of the rows and the weight.
        epsilon: added to the mean of the squares.
        adds: whether two tensors are added first.
        keeps_sum: whether that sum is a result too.
        leading: dimensions before the normalized one, 1 or 2. Their sizes are symbolic.
    """

    size: int
    dtype: str
    epsilon: float
    adds: bool = False
    keeps_sum: bool = False
    leading: int = 2

    def to_json(self) -> str:
        """Text, the inverse of :meth:`from_json`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Norm:
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))

    @property
    def name(self) -> str:
        """Of the kernel."""
        if self.adds:
            return f"{'add_rms_norm' if self.keeps_sum else 'rms_norm_of_sum'}_{self.size}"
        return f"rms_norm_{self.size}"


def rms_norm(norm: Norm, limits: Limits) -> Any:
    """The PrimFunc ``(x[, addend], weight (size,)[, total], y)``, all others ``(..., size)``."""
    walk = _Walk.within(norm.size, limits)
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            outer = [T.int32() for _ in range(norm.leading)]

            def rows(name: str) -> Memory:
                return Memory(T.arg(name, T.buffer((*outer, norm.size), norm.dtype)))

            terms = [rows("x"), rows("addend")] if norm.adds else [rows("x")]
            weight = Memory(T.arg("weight", T.buffer((norm.size,), norm.dtype)))
            total = rows("total") if norm.keeps_sum else None
            y = rows("y")
            with launch(walk.lanes, *reversed(outer)) as (lane, *groups):
                exchange = Exchange(lane, walk.lanes)
                entries = _Entries(norm, walk, terms, tuple(reversed(groups)))
                squares = registers(1)
                squares[0] = T.float32(0)
                for first, place in walk.steps(lane):
                    entries.load(first, place)
                    if total is not None:
                        entries.store(total, first, place)
                    squares[0] = squares[0] + entries.squares(first)
                mean = exchange.reduce(squares[0], operator.add) / T.float32(norm.size)
                scale = keep(T.rsqrt(mean + T.float32(norm.epsilon)), "float32")
                for first, place in walk.steps(lane):
                    if not walk.keeps_all:
                        entries.load(first, place)
                    entries.scale(first, scale, weight.vector(place, walk.vector))
                    entries.store(y, first, place)
        return builder.get()


@dataclass(frozen=True)
class _Walk:
    """How the lanes of a work-group walk over a row.

    Attributes:
        size: entries of the row.
        lanes: of the work-group, a power of two.
        vector: neighbours that a lane takes in one step.
    """

    size: int
    lanes: int
    vector: int

    @classmethod
    def within(cls, size: int, limits: Limits) -> _Walk:
        vector = limits.vector_lanes
        while size % vector:
            vector //= 2
        # No more lanes than there are vectors, rounded up.
        vectors = 2 * power_of_two(max(1, size // vector - 1))
        return cls(size, limits.lanes(min(_LANES, vectors)), vector)

    @property
    def count(self) -> int:
        """Steps of a lane."""
        return -(-self.size // (self.lanes * self.vector))

    @property
    def keeps_all(self) -> bool:
        """Whether a lane keeps its entries in registers, instead of reading them again."""
        return self.count * self.vector <= _MOST_REGISTERS

    @property
    def kept(self) -> int:
        """Registers for entries."""
        return self.count * self.vector if self.keeps_all else self.vector

    def steps(self, lane: Any) -> Iterator[tuple[int, Any]]:
        """Each step's first register and its place in the row, under a condition where needed."""
        stride = self.lanes * self.vector
        if self.keeps_all:
            for step in range(self.count):
                with when(step * stride + lane * self.vector < self.size):
                    yield step * self.vector, step * stride + lane * self.vector
        else:
            with T.serial(0, self.count) as step:
                place = step * stride + lane * self.vector
                with when(place < self.size):
                    yield 0, place


class _Entries:
    """A lane's entries of a row, in registers."""

    def __init__(
        self, norm: Norm, walk: _Walk, terms: Sequence[Memory], row: tuple[Any, ...]
    ) -> None:
        self._dtype = norm.dtype
        self._lanes = walk.vector
        self._terms = terms
        self._row = row
        self._values = registers(walk.kept, norm.dtype)
        self._other = registers(walk.vector, norm.dtype)

    def load(self, first: int, place: Any) -> None:
        """Add up the terms at ``place``, in the registers from ``first`` on."""
        values, other = self._values, self._other
        start, *more = (term.vector((*self._row, place), self._lanes) for term in self._terms)
        values.set_vector(first, start, self._lanes)
        for term in more:
            other.set_vector(0, term, self._lanes)
            for i in range(self._lanes):
                values[first + i] = values[first + i] + other[i]

    def squares(self, first: int) -> Any:
        """The sum of the squares of a step's entries."""
        wide = [T.Cast("float32", self._values[first + i]) for i in range(self._lanes)]
        return sum((x * x for x in wide[1:]), start=wide[0] * wide[0])

    def scale(self, first: int, scale: Any, weight: Any) -> None:
        """Multiply a step's entries by a number and a vector."""
        self._other.set_vector(0, weight, self._lanes)
        for i in range(self._lanes):
            value = T.Cast("float32", self._values[first + i]) * scale
            value = value * T.Cast("float32", self._other[i])
            self._values[first + i] = T.Cast(self._dtype, value)

    def store(self, target: Memory, first: int, place: Any) -> None:
        """Write a step's entries."""
        values = self._values.vector(first, self._lanes)
        target.set_vector((*self._row, place), values, self._lanes)
