"""How many tokens to draft: as many as pay, by what was measured."""

from __future__ import annotations

from collections import deque

from edgec.runtime.ngram import LONGEST_MATCH

# Sizes of passes that are tried, drafted tokens and the one before them. Kernels work on a few rows
# at a time, so sizes between these cost as much as the next one.
_PASSES = (2, 3, 4, 6, 8, 12, 16)

# What a new estimate weighs against the one that it begins with, in tokens.
_PRIOR_WEIGHT = 2.0
_FIRST_GUESS = 0.3
# An observation counts half after about 34 others.
_DECAY = 0.98
# Timings that are remembered of each kind of pass: their median forgets interruptions.
_TIMINGS = 7
# Tokens that are less likely to be reached add nothing to a draft.
_HOPELESS = 0.02
# If the next token is less likely to be right, it is better guessed on when it came.
_WORTH_A_PASS = 0.2
# A draft has to promise this much, since promises are estimates.
_GAIN = 1.05


class DraftLength:
    """Chooses how many tokens to draft from measured times and agreements.

    A pass that verifies ``d`` tokens pays if the tokens that it is expected to give come faster
    than by single steps. How likely a drafted token is right is known without verifying any: every
    token that is generated either agrees with what would have been drafted or doesn't. So text
    that the drafts don't fit costs no passes. Estimates go by the length of the match behind a
    draft, and for each length begin with that of the next shorter one.
    """

    def __init__(self) -> None:
        self._right = [0.0] * (LONGEST_MATCH + 1)
        self._seen = [0.0] * (LONGEST_MATCH + 1)
        self._timings: dict[int, deque[float]] = {}
        self._times: dict[int, float] = {}

    def observe(self, match: int, right: bool) -> None:
        """A token came of which the prediction was right or wrong.

        Args:
            match: length of the match behind the prediction, 1 to ``LONGEST_MATCH``.
            right: whether it was.
        """
        self._right[match] = self._right[match] * _DECAY + right
        self._seen[match] = self._seen[match] * _DECAY + 1

    def timed(self, rows: int, seconds: float) -> None:
        """A pass over ``rows`` tokens took this long; 1 is a single step."""
        timings = self._timings.setdefault(rows, deque(maxlen=_TIMINGS))
        timings.append(seconds)
        self._times[rows] = sorted(timings)[len(timings) // 2]

    def choose(self, match: int, most: int) -> int:
        """How many tokens to draft now; 0 for a single step.

        Args:
            match: length of the match, 0 if there is none.
            most: to draft at all.
        """
        if not match or 1 not in self._times:
            return 0
        chances = self._chances(match)
        if chances[match] < _WORTH_A_PASS:
            return 0
        chances = self._chances(LONGEST_MATCH)
        best, best_rate = 0, _GAIN / self._times[1]
        reach = 2 * max(self._times)
        expected, chance, drafted = 1.0, 1.0, 0
        for rows in _sizes(most):
            if rows > reach or chance < _HOPELESS:
                break
            for ahead in range(drafted, rows - 1):
                chance *= chances[min(match + ahead, LONGEST_MATCH)]
                expected += chance
            drafted = rows - 1
            rate = expected / self._time(rows)
            if rate > best_rate:
                best, best_rate = drafted, rate
        return best

    def _chances(self, longest: int) -> list[float]:
        """How likely the next token is right by the length of the match, up to ``longest``."""
        chances = [0.0]
        lower = _FIRST_GUESS
        for match in range(1, longest + 1):
            lower = (self._right[match] + _PRIOR_WEIGHT * lower) / (
                self._seen[match] + _PRIOR_WEIGHT
            )
            chances.append(lower)
        return chances

    def _time(self, rows: int) -> float:
        """Seconds of a pass: measured, else between its measured neighbours.

        Of a size beyond all measured ones as much as of the largest: so it is tried, once.
        """
        if rows in self._times:
            return self._times[rows]
        below = max(size for size in self._times if size < rows)
        above = min((size for size in self._times if size > rows), default=None)
        low = self._times[below]
        if above is None:
            return low
        share = (rows - below) / (above - below)
        return low + share * (self._times[above] - low)


def _sizes(most: int) -> list[int]:
    """Passes with at most ``most`` drafted tokens; the largest of them is one."""
    sizes = [rows for rows in _PASSES if rows <= most + 1]
    return sizes if not most or most + 1 in sizes else [*sizes, most + 1]
