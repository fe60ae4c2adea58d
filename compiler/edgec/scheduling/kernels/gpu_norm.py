"""RMS and layer normalization of rows on GPUs, alone or with the residual addition before it.

One work-group per row. A residual sum is rounded to the dtype of the hidden states first, as if it
had been stored and read again, so the fused kernel gives what two kernels would. Sums, squares and
the scaling are float32. A layer norm's variance is that of entries whose mean was taken off before,
for the difference of two large sums would lose most of its digits.
"""

from __future__ import annotations

import operator
from contextlib import contextmanager
from dataclasses import dataclass
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

    from edgec.scheduling.kernels.norm import Norm, NormKernels

_LANES = 256
_MOST_REGISTERS = 32
_MOST_LEADING = 3


def norm_kernels(limits: Limits) -> NormKernels:
    """A GPU's kernels, for :class:`edgec.passes.fuse_add_norm.FuseAddNorm`."""

    def make(norm: Norm, outer: Sequence[int | None]) -> Any:  # noqa: ARG001 - they are symbolic
        return norm_of_rows(norm, limits)

    return make


def norm_of_rows(norm: Norm, limits: Limits) -> Any:
    """The kernel of a norm, whatever the sizes of leading dimensions; see :class:`NormKernels`."""
    walk = _Walk.within(norm.size, limits)
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            outer = [T.int32() for _ in range(norm.leading)]

            def rows(name: str) -> Memory:
                return Memory(T.arg(name, T.buffer((*outer, norm.size), norm.dtype)))

            terms = [rows("x"), rows("addend")] if norm.adds else [rows("x")]
            factors = ("weight", "bias") if norm.centered else ("weight",)
            learned = [Memory(T.arg(name, T.buffer((norm.size,), norm.dtype))) for name in factors]
            total = rows("total") if norm.keeps_sum else None
            y = rows("y")
            with _row(walk.lanes, outer) as (lane, row):
                exchange = Exchange(lane, walk.lanes)
                entries = _Entries(norm, walk, terms, row)
                entries.clear()
                for first, place in walk.steps(lane):
                    entries.load(first, place)
                    if total is not None:
                        entries.store(total, first, place)
                    entries.add(first, squared=not norm.centered)
                mean = exchange.reduce(entries.sum, operator.add) / T.float32(norm.size)
                if norm.centered:
                    entries.center(mean)
                    for first, place in walk.steps(lane):
                        entries.load_again(first, place)
                        entries.add(first, squared=True)
                    mean = exchange.reduce(entries.sum, operator.add) / T.float32(norm.size)
                scale = keep(T.rsqrt(mean + T.float32(norm.epsilon)), "float32")
                for first, place in walk.steps(lane):
                    entries.load_again(first, place)
                    entries.scale(
                        first, scale, [item.vector(place, walk.vector) for item in learned]
                    )
                    entries.store(y, first, place)
        return builder.get()


@contextmanager
def _row(lanes: int, outer: Sequence[Any]) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """A work-group for each row: the lane, and where the row lies."""
    if len(outer) < _MOST_LEADING:
        with launch(lanes, *reversed(outer)) as (lane, *groups):
            yield lane, tuple(reversed(groups))
        return
    # A grid has two dimensions: the last two axes share one.
    first, second, third = outer
    with launch(lanes, second * third, first) as (lane, index, group):
        inner = [keep(divide(index, third)) for divide in (T.truncdiv, T.truncmod)]
        yield lane, (group, *inner)


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
        self._keeps_all = walk.keeps_all
        self._terms = terms
        self._row = row
        self._values = registers(walk.kept, norm.dtype)
        self._other = registers(walk.vector, norm.dtype)
        self._sum = registers(1)
        self._mean: Any = None

    def load(self, first: int, place: Any) -> None:
        """Add up the terms at ``place``, in the registers from ``first`` on."""
        values, other = self._values, self._other
        start, *more = (term.vector((*self._row, place), self._lanes) for term in self._terms)
        values.set_vector(first, start, self._lanes)
        for term in more:
            other.set_vector(0, term, self._lanes)
            for i in range(self._lanes):
                values[first + i] = values[first + i] + other[i]

    def load_again(self, first: int, place: Any) -> None:
        """The same, unless they are there since :meth:`load`."""
        if not self._keeps_all:
            self.load(first, place)

    @property
    def sum(self) -> Any:
        """What was added up by this lane."""
        return self._sum[0]

    def clear(self) -> None:
        """Begin a sum."""
        self._sum[0] = T.float32(0)

    def add(self, first: int, *, squared: bool) -> None:
        """Add up a step's entries without the mean, or their squares."""
        wide = self._wide(first)
        terms = [x * x for x in wide] if squared else wide
        self._sum[0] = self._sum[0] + sum(terms[1:], start=terms[0])

    def center(self, mean: Any) -> None:
        """Take off the mean from now on, and begin another sum."""
        self._mean = keep(mean, "float32")
        self.clear()

    def scale(self, first: int, scale: Any, learned: Sequence[Any]) -> None:
        """Multiply a step's entries by a number and a vector, and add another if there is one."""
        weight, *bias = learned
        self._other.set_vector(0, weight, self._lanes)
        values = [
            x * scale * T.Cast("float32", self._other[i]) for i, x in enumerate(self._wide(first))
        ]
        if not bias:
            for i, value in enumerate(values):
                self._values[first + i] = T.Cast(self._dtype, value)
            return
        shifted = [keep(value, "float32") for value in values]
        self._other.set_vector(0, bias[0], self._lanes)
        for i, value in enumerate(shifted):
            total = value + T.Cast("float32", self._other[i])
            self._values[first + i] = T.Cast(self._dtype, total)

    def _wide(self, first: int) -> list[Any]:
        """A step's entries in float32, without the mean."""
        wide = [T.Cast("float32", self._values[first + i]) for i in range(self._lanes)]
        return wide if self._mean is None else [x - self._mean for x in wide]

    def store(self, target: Memory, first: int, place: Any) -> None:
        """Write a step's entries."""
        values = self._values.vector(first, self._lanes)
        target.set_vector((*self._row, place), values, self._lanes)
