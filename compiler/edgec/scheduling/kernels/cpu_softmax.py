"""The softmax of logits on CPUs, in vectors.

Rows are spread over the threads. A row is read three times: for the largest entry, for the exponentials
and their sum, and to divide by it. One float32 sum over 100,000 entries would lose four digits: there are
:data:`SUMS` of them, each of every 64th entry, added up at last.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels import HAND_WRITTEN
from edgec.scheduling.kernels.vectors import Row, Vectors, broadcast, exp2, ramp, without_regions

if TYPE_CHECKING:
    from collections.abc import Callable

SUMS = 64
"""Sums of a row, and entries of a step."""
# 2**x is 0 from here on.
_LEAST = -126.0


def softmax_with_temperature(vocab: int, vector_bits: int) -> Any:
    """``softmax(logits / temperature)`` of logits ``(n, 1, v)``; a new tensor of that shape.

    Temperature 0 gives the limit: equal shares for the largest entries, 0 for all others.
    """
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, HAND_WRITTEN: True})
            n = T.int64()
            logits = T.arg("logits", T.buffer((n, 1, vocab), "float32"))
            temperature = T.arg("temperature", T.buffer((n,), "float32"))
            probs = T.arg("probs", T.buffer((n, 1, vocab), "float32"))
            with T.sblock("root"), T.parallel(0, n) as row, T.sblock("row"):
                without_regions()
                _Row(vocab, vector_bits // 32, logits, probs, row).share(temperature[row])
        return builder.get()


class _Row:
    """One row of logits.

    Args:
        vocab: its entries.
        lanes: of a vector.
        logits: all rows.
        probs: where the results go.
        row: its number.
    """

    def __init__(self, vocab: int, lanes: int, logits: Any, probs: Any, row: Any) -> None:
        self._vocab, self._lanes, self._row = vocab, lanes, row
        self._logits, self._probs = logits, probs

    def share(self, temperature: Any) -> None:
        """Write its probabilities."""
        top = self._largest()
        warm = T.Bind(temperature > T.float32(0))
        divisor = T.Bind(T.if_then_else(warm, temperature, T.float32(1)))
        total = self._powers(top, warm, divisor)

        def divide(_: int, column: Any, lanes: int) -> None:
            place = self._place(column, lanes)
            value = self._probs[place] / broadcast(total, lanes)
            T.buffer_store(self._probs, value, list(place))

        self._walk(divide)

    def _largest(self) -> Any:
        """The largest entry."""
        tops = Vectors(SUMS // self._lanes, self._lanes)
        for i in range(SUMS // self._lanes):
            tops[i] = broadcast(self._logits[self._row, 0, 0], self._lanes)

        def compare(i: int, column: Any, lanes: int) -> None:
            value = self._logits[self._place(column, lanes)]
            tops.store(i, T.max(tops.load(i, lanes), value), lanes)

        self._walk(compare)
        largest = tops[0]
        for i in range(1, SUMS // self._lanes):
            largest = T.max(largest, tops[i])
        fold = Row(self._lanes)
        fold.store(largest)
        return T.Bind(fold.reduce(T.max))

    def _powers(self, top: Any, warm: Any, divisor: Any) -> Any:
        """Write what is yet to be divided by its sum; gives the sum."""
        sums = Vectors(SUMS // self._lanes, self._lanes)
        sums.clear()

        def raise_(i: int, column: Any, lanes: int) -> None:
            place = self._place(column, lanes)
            below = T.Bind(self._logits[place] - broadcast(top, lanes))
            exponent = below / broadcast(divisor, lanes) * _number(math.log2(math.e), lanes)
            exponent = T.Bind(exponent)
            zero, one = _number(0, lanes), _number(1, lanes)
            power = T.Select(exponent > _number(_LEAST, lanes), exp2(exponent, lanes), zero)
            cold = T.Select(below < zero, zero, one)
            share = T.Bind(T.Select(broadcast(warm, lanes), power, cold))
            T.buffer_store(self._probs, share, list(place))
            sums.store(i, sums.load(i, lanes) + share, lanes)

        self._walk(raise_)
        first, *rest = sums.sums()
        return T.Bind(sum(rest, start=first))

    def _walk(self, visit: Callable[[int, Any, int], None]) -> None:
        """Visit all entries.

        Args:
            visit: is given the number of an accumulator, a column, and how many lanes begin there; the
                last entries come one by one, all to the first accumulator.
        """
        steps = self._vocab // SUMS
        if steps:
            with T.serial(0, steps) as step:
                for i in range(SUMS // self._lanes):
                    visit(i, step * SUMS + i * self._lanes, self._lanes)
        if self._vocab % SUMS:
            with T.serial(0, self._vocab % SUMS) as column:
                visit(0, column + steps * SUMS, 1)

    def _place(self, column: Any, lanes: int) -> tuple[Any, ...]:
        return self._row, 0, ramp(column, 1, lanes)


def _number(value: float, lanes: int) -> Any:
    return broadcast(T.float32(value), lanes)
