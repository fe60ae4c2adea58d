"""What a work-group of GPU attention does: a tile of rows, while blocks of keys pass."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.attention_arguments import (
    LOG2_E,
    NOTHING,
    Heads,
    flag,
)
from edgec.scheduling.kernels.gpu_turns import Turns, turn
from edgec.scheduling.kernels.gpu_work_group import (
    Memory,
    barrier,
    keep,
    registers,
    shared,
    when,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgec.scheduling.kernels.attention_arguments import (
        DecodeArguments,
        PagedPrefillArguments,
        RaggedPrefillArguments,
    )

LANES = 64
KEYS = 64  # of a block
_MOST_ROWS = 8  # of a tile for one token
_NO_LIMIT = 3e38
_STEPS = 2  # features or keys between two turns of a loop, which keep sums in registers meanwhile


@dataclass(frozen=True)
class Tile:
    """How the lanes of a work-group share a tile of rows and a block of keys, or of features.

    Attributes:
        down: lanes along the rows; a power of two.
        high: rows that a lane has.
    """

    down: int
    high: int

    @classmethod
    def of_one_token(cls, a: Heads) -> Tile:
        """A lane has one of the token's heads, of which there are as many as fit."""
        return cls(down=min(_MOST_ROWS, 1 << (a.group - 1).bit_length()), high=1)

    @classmethod
    def of_tokens(cls, a: Heads) -> Tile:
        """Lanes form a square. Of wide heads a lane has fewer rows, since it sums up features of each."""
        return cls(down=8, high=4 if a.head_dim <= 128 else 2)

    @property
    def rows(self) -> int:
        """Of the tile."""
        return self.down * self.high

    @property
    def across(self) -> int:
        """Lanes along the keys, or along the features."""
        return LANES // self.down

    @property
    def wide(self) -> int:
        """Keys of a block that a lane has."""
        return KEYS // self.across

    @property
    def pitch(self) -> int:
        """From a row of scores to the next: rows begin in different banks of shared memory."""
        return KEYS + 1


@dataclass(frozen=True)
class Rows:
    """What the rows of a tile are; functions of a row's number.

    Attributes:
        token: of existing rows; of others one that exists.
        head: the query head, likewise.
        exists: whether results are written.
    """

    token: Callable[[Any], Any]
    head: Callable[[Any], Any]
    exists: Callable[[Any], Any]


class Keys(Protocol):
    """Keys and values of one sequence and head."""

    def place(self, key: Any) -> Any:
        """Where a key is, to be computed once."""

    def load(self, which: int, place: Any, feature: Any) -> Any:
        """A feature of the key (``which`` 0) or the value (1) at a place, in float32."""


@dataclass(frozen=True)
class _Halves:
    """A feature of the first half of a head and its partner in the other, of several rows."""

    low: Memory
    high: Memory

    @classmethod
    def of(cls, rows: int) -> _Halves:
        return cls(registers(rows), registers(rows))


class Attention:
    """A tile's attention, while blocks of keys pass.

    Lane ``(below, right)`` has the rows ``below + i * down``, and of a block the keys
    ``right + j * across``; of the result, the features ``right + c * across``.

    Attributes:
        limits: how many keys of the sequence a lane's rows see; to be set.
        firsts: the first of them; to be set where the heads have a window.
        own: numbers of the lane's rows.
        first_position: of the sequence's first key; to be set where keys are rotated.
    """

    def __init__(
        self,
        a: Heads,
        tile: Tile,
        lane: Any,
        rows: Rows,
        given: DecodeArguments | PagedPrefillArguments | RaggedPrefillArguments,
        turns: Turns | None = None,
    ) -> None:
        self._heads = a
        self._tile = tile
        self._rows = rows
        self._given = given
        self._turns = turns
        self.first_position: Any = None
        self._spread = -(-a.head_dim // tile.across)
        self._right = keep(T.bitwise_and(lane, tile.across - 1))
        below = keep(T.shift_right(lane, tile.across.bit_length() - 1))
        self.own = [keep(below + i * tile.down) for i in range(tile.high)]
        self._tokens = [keep(rows.token(row)) for row in self.own]
        self._query_heads = [keep(rows.head(row)) for row in self.own]
        self.limits = registers(tile.high, "int32")
        if a.window is not None:
            self.firsts = registers(tile.high, "int32")
        # The total is of the lane's own keys until the end.
        self._tops, self._totals = registers(tile.high), registers(tile.high)
        self._result = registers(tile.high * self._spread)
        self._weights = shared(tile.rows * tile.pitch)
        self._partial = shared(tile.rows * tile.across)
        for i in range(tile.high):
            self._tops[i] = T.float32(NOTHING)
            self._totals[i] = T.float32(0)
        for i in range(tile.high * self._spread):
            self._result[i] = T.float32(0)

    def attend(self, keys: Keys, length: Any, bound: Any, first: Any = None) -> None:
        """Add keys of a sequence, which has ``length``.

        Rows see none from ``bound`` on and, unless it is None, none before ``first``. All lanes have
        to call it with the same numbers.
        """
        count = T.shift_right(T.max(bound, 0) + (KEYS - 1), KEYS_SHIFT)
        passed = None if first is None else keep(T.shift_right(T.max(first, 0), KEYS_SHIFT))
        with T.serial(0, count if passed is None else T.max(count - passed, 0)) as index:
            start = keep((index if passed is None else index + passed) * KEYS)
            scores = self._products(keys, start, length)
            self._mask(scores, start)
            self._share_maxima(scores)
            barrier()
            self._softmax(scores)
            # Nobody writes weights of the next block before all have read those of this one: there
            # is the barrier above between the two.
            barrier()
            self._add_values(keys, start, length)

    def _products(self, keys: Keys, start: Any, length: Any) -> Memory:
        tile, a = self._tile, self._heads
        half = a.head_dim // 2
        sums = registers(tile.high * tile.wide)
        queries, columns = _Halves.of(tile.high), _Halves.of(tile.wide)
        for i in range(tile.high * tile.wide):
            sums[i] = T.float32(0)
        numbers = [start + self._right + j * tile.across for j in range(tile.wide)]
        # Past the last key the last one is read again: its scores are masked.
        places = [keys.place(T.min(number, length - 1)) for number in numbers]
        positions = self._positions(numbers)
        steps = math.gcd(_STEPS // 2, half)
        with T.serial(0, half // steps) as step:
            for offset in range(steps):
                pair = step * steps + offset
                for part, memory in enumerate((queries.low, queries.high)):
                    for i in range(tile.high):
                        place = self._tokens[i], self._query_heads[i], pair + part * half
                        memory[i] = T.Cast("float32", self._given.q[place])
                for part, memory in enumerate((columns.low, columns.high)):
                    for j, place in enumerate(places):
                        memory[j] = keys.load(0, place, pair + part * half)
                self._turn(pair, (queries, columns), positions)
                for i, j in itertools.product(range(tile.high), range(tile.wide)):
                    at = i * tile.wide + j
                    sums[at] = sums[at] + queries.low[i] * columns.low[j]
                    sums[at] = sums[at] + queries.high[i] * columns.high[j]
        return sums

    def _turn(
        self, pair: Any, halves: tuple[_Halves, _Halves], positions: tuple[list[Any], list[Any]]
    ) -> None:
        """Rotate a pair of features of the lane's rows and keys, if that is wanted."""
        if self._turns is None:
            return
        with when(self._turns.wanted):
            frequency = self._turns.frequency(pair)
            for points, where in zip(halves, positions, strict=True):
                for index, position in enumerate(where):
                    turn(points.low, points.high, index, position * frequency)

    def _positions(self, numbers: list[Any]) -> tuple[list[Any], list[Any]]:
        """Positions, in float32, of the lane's rows and of keys of the sequence."""
        if self._turns is None:
            return [], []
        own = [self._turns.queries[token] for token in self._tokens]
        all_ = own, [self.first_position + number for number in numbers]
        rows, keys = ([keep(T.Cast("float32", p), "float32") for p in part] for part in all_)
        return rows, keys

    def _mask(self, scores: Memory, start: Any) -> None:
        """Scale scores, in base 2, and cap them; keys that a row doesn't see get the lowest."""
        tile, cap = self._tile, self._heads.soft_cap
        base = LOG2_E if cap is None else 2 * LOG2_E / cap
        factor = keep(self._given.scale * T.float32(base), "float32")
        for i in range(tile.high):
            for j in range(tile.wide):
                number = start + self._right + j * tile.across
                at = i * tile.wide + j
                score = scores[at] * factor
                if cap is not None:
                    # cap * tanh(x / cap), as 1 - 2 / (1 + 2^x): from 64 on that is 1 in float32.
                    power = T.exp2(T.min(score, T.float32(64)))
                    part = T.float32(1) - T.float32(2) / (T.float32(1) + power)
                    score = T.float32(cap * LOG2_E) * part
                scores[at] = T.min(score, _most(number < self.limits[i]))
                if self._heads.window is not None:
                    scores[at] = T.min(scores[at], _most(number >= self.firsts[i]))

    def _share_maxima(self, scores: Memory) -> None:
        tile = self._tile
        top = registers(1)
        for i, row in enumerate(self.own):
            top[0] = scores[i * tile.wide]
            for j in range(1, tile.wide):
                top[0] = T.max(top[0], scores[i * tile.wide + j])
            self._partial[row * tile.across + self._right] = top[0]

    def _softmax(self, scores: Memory) -> None:
        """Turn scores into weights, and scale down all that came before."""
        tile, spread = self._tile, self._spread
        top, weight = registers(1), registers(1)
        for i, row in enumerate(self.own):
            top[0] = self._tops[i]
            with T.serial(0, tile.across) as lane:
                top[0] = T.max(top[0], self._partial[row * tile.across + lane])
            factor = keep(T.exp2(self._tops[i] - top[0]), "float32")
            self._tops[i] = top[0]
            self._totals[i] = self._totals[i] * factor
            for c in range(spread):
                self._result[i * spread + c] = self._result[i * spread + c] * factor
            for j in range(tile.wide):
                score = scores[i * tile.wide + j]
                seen = flag(score > T.float32(NOTHING), "float32")
                weight[0] = T.exp2(score - top[0]) * seen
                self._totals[i] = self._totals[i] + weight[0]
                self._weights[row * tile.pitch + self._right + j * tile.across] = weight[0]

    def _add_values(self, keys: Keys, start: Any, length: Any) -> None:
        tile, spread = self._tile, self._spread
        weights = registers(tile.high)
        count = T.min(length - start, KEYS)
        with T.serial(0, T.truncdiv(count + (_STEPS - 1), _STEPS)) as step:
            for offset in range(_STEPS):
                key = step * _STEPS + offset
                # Past the last key weights are 0, and the last value is read again.
                place = keys.place(T.min(start + key, length - 1))
                for i, row in enumerate(self.own):
                    weights[i] = self._weights[row * tile.pitch + key]
                for c in range(spread):
                    value = keep(keys.load(1, place, self._feature(c)), "float32")
                    for i in range(tile.high):
                        at = i * spread + c
                        self._result[at] = self._result[at] + weights[i] * value

    def _feature(self, c: int) -> Any:
        """A lane's feature number ``c``; past the last one the last, which isn't written."""
        feature = self._right + c * self._tile.across
        if (c + 1) * self._tile.across <= self._heads.head_dim:
            return feature
        return T.min(feature, self._heads.head_dim - 1)

    def finish(self) -> None:
        """Write output and log-sum-exp of the rows that exist."""
        tile = self._tile
        output, logarithms = Memory(self._given.out), Memory(self._given.lse)
        # All have read the maxima of the last block: there is a barrier behind that.
        for i, row in enumerate(self.own):
            self._partial[row * tile.across + self._right] = self._totals[i]
        barrier()
        total = registers(1)
        for i, row in enumerate(self.own):
            total[0] = T.float32(0)
            with T.serial(0, tile.across) as lane:
                total[0] = total[0] + self._partial[row * tile.across + lane]
            place = self._tokens[i], self._query_heads[i]
            # A row that sees nothing has weights of 0, and the lowest maximum.
            total[0] = total[0] + flag(total[0] <= T.float32(0), "float32")
            factor = keep(T.float32(1) / total[0], "float32")
            with when(self._rows.exists(row)):
                with when(self._right == 0):
                    logarithms[place] = self._tops[i] + T.log2(total[0])
                for c in range(self._spread):
                    value = T.Cast(self._heads.dtype, self._result[i * self._spread + c] * factor)
                    feature = self._right + c * tile.across
                    if (c + 1) * tile.across <= self._heads.head_dim:
                        output[(*place, feature)] = value
                    else:
                        with when(feature < self._heads.head_dim):
                            output[(*place, feature)] = value


def _most(seen: Any) -> Any:
    """What a score may be: a minimum with it is a mask without a branch."""
    return T.Select(seen, T.float32(_NO_LIMIT), T.float32(NOTHING))


KEYS_SHIFT = KEYS.bit_length() - 1
