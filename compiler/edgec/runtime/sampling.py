"""From logits to the next token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.errors import BuildError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

# Candidates that a search for the most likely tokens starts with. It grows until it has enough.
_FIRST_CANDIDATES = 256
# Weights that are added up, or of which the largest is found, before any of them is looked at.
_BLOCK = 128


@dataclass(frozen=True)
class SamplingOptions:
    """How the next token is chosen.

    Attributes:
        temperature: divides the logits; 0 always takes the most likely token.
        top_p: choose among the most likely tokens that have this share of the probability
            (nucleus sampling, https://arxiv.org/abs/1904.09751); 1 is off.
        top_k: choose among this many of the most likely tokens; None is off.
        repetition_penalty: of tokens that were generated before, divides positive logits and
            multiplies negative ones (https://arxiv.org/abs/1909.05858); 1 is off.
        presence_penalty: subtracted from the logits of tokens that were generated before.
        frequency_penalty: subtracted once for each time.
        seed: equal seeds give equal choices; None for a new one every time.

    Raises:
        UsageError: a value is outside of its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        self._check("temperature", self.temperature >= 0, "a number from 0 up")
        self._check("top_p", 0 < self.top_p <= 1, "a number above 0 and at most 1")
        self._check("top_k", self.top_k is None or self.top_k >= 1, "a whole number from 1 up")
        self._check("repetition_penalty", self.repetition_penalty > 0, "a number above 0")
        self._check("presence_penalty", abs(self.presence_penalty) <= 2, "a number from -2 to 2")
        self._check("frequency_penalty", abs(self.frequency_penalty) <= 2, "a number from -2 to 2")
        self._check("seed", self.seed is None or self.seed >= 0, "a whole number from 0 up")

    @classmethod
    def from_chat_config(cls, config: Mapping[str, Any], **changes: Any) -> SamplingOptions:
        """The defaults that an artifact carries.

        Args:
            config: content of ``mlc-chat-config.json``.
            changes: options that are given and not None win.

        Raises:
            UsageError: a value is outside of its range.
        """
        names = (
            "temperature",
            "top_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
        )
        given = {name: config[name] for name in names if config.get(name) is not None}
        given.update({name: value for name, value in changes.items() if value is not None})
        return cls(**given)

    def _check(self, name: str, accepted: bool, range_: str) -> None:
        value = getattr(self, name)
        if not accepted or (isinstance(value, float) and not math.isfinite(value)):
            raise UsageError(f"{value} is out of range", where=name, remedy=f"give {range_}")

    @property
    def penalizes(self) -> bool:
        """Whether tokens that were generated before become less or more likely."""
        off = (1.0, 0.0, 0.0)
        return off != (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)


class Sampler:
    """Chooses tokens; its only state is that of its random numbers (PCG64), and memory.

    Args:
        options: how to choose.
    """

    def __init__(self, options: SamplingOptions) -> None:
        self._options = options
        self._random = np.random.Generator(np.random.PCG64(options.seed))
        self._weights = _Weights()

    def sample(self, logits: npt.NDArray[np.float32], counts: Mapping[int, int]) -> int:
        """Choose one token.

        Args:
            logits: ``(vocab,)``; not changed. ``-inf`` excludes a token.
            counts: how often tokens were generated so far.

        Raises:
            BuildError: a logit is NaN or infinite, or all are excluded.
        """
        options = self._options
        if options.penalizes and counts:
            logits = _penalized(logits, counts, options)
        highest = logits.max()  # NaN if any logit is
        if not np.isfinite(highest):
            raise BuildError(
                f"the model's logits are unusable: the largest is {highest}",
                remedy="check the artifact with edgec verify",
            )
        if options.temperature == 0:
            return int(logits.argmax())
        weights = self._weights.of(logits, highest, options.temperature)
        if options.top_p == 1 and options.top_k is None:
            return self._draw(weights)
        candidates = _most_likely(weights, options)
        return int(candidates[self._draw(weights[candidates])])

    def _draw(self, weights: npt.NDArray[np.float64]) -> int:
        """An index with a probability in proportion to its weight."""
        starts = np.arange(0, weights.size, _BLOCK)
        sums = np.cumsum(np.add.reduceat(weights, starts))
        # The draw is below 1, but its product with the sum can round up to it.
        drawn = min(self._random.random() * sums[-1], np.nextafter(sums[-1], 0))
        block = int(np.searchsorted(sums, drawn, side="right"))
        within = np.cumsum(weights[starts[block] : starts[block] + _BLOCK])
        drawn -= sums[block] - within[-1]
        # The sum before the block is rounded as well: the draw stays inside of it, at a weight.
        drawn = min(max(drawn, 0.0), np.nextafter(within[-1], 0))
        return int(starts[block]) + int(np.searchsorted(within, drawn, side="right"))


def _penalized(
    logits: npt.NDArray[np.float32], counts: Mapping[int, int], options: SamplingOptions
) -> npt.NDArray[np.float32]:
    """Logits with the penalties of :class:`SamplingOptions`, in the order of the MLC engines."""
    tokens = np.fromiter(counts.keys(), np.int64, len(counts))
    times = np.fromiter(counts.values(), np.float32, len(counts))
    changed = logits[tokens] - (options.presence_penalty + options.frequency_penalty * times)
    penalty = np.float32(options.repetition_penalty)
    result: npt.NDArray[np.float32] = logits.copy()
    result[tokens] = np.where(changed < 0, changed * penalty, changed / penalty)
    return result


class _Weights:
    """Probabilities up to a factor, in memory that is used again for every token.

    The allocator gives arrays of this size back to the system at once, and what it costs to get their
    pages anew is many times the arithmetic.
    """

    def __init__(self) -> None:
        self._wide = np.empty(0, np.float64)
        self._narrow = np.empty(0, np.float32)

    def of(
        self, logits: npt.NDArray[np.float32], highest: np.float32, temperature: float
    ) -> npt.NDArray[np.float64]:
        """Weights of which the largest is 1, until the next call.

        Args:
            logits: ``(vocab,)``.
            highest: the largest of them.
            temperature: divides them.
        """
        if self._wide.shape != logits.shape:
            self._wide = np.empty(logits.shape, np.float64)
            self._narrow = np.empty(logits.shape, np.float32)
        np.subtract(logits, highest, out=self._wide, dtype=np.float64)
        with np.errstate(over="ignore"):  # a tiny temperature sends all but the best to -inf
            self._wide /= temperature
            self._narrow[:] = self._wide
        # In single precision it takes a tenth of the time, and is still exact to a millionth.
        np.exp(self._narrow, out=self._narrow)
        self._wide[:] = self._narrow
        return self._wide


def _most_likely(
    weights: npt.NDArray[np.float64], options: SamplingOptions
) -> npt.NDArray[np.int64]:
    """The tokens that ``top_k`` and then ``top_p`` leave, the most likely first.

    Of equally likely tokens the one with the lower id comes first. The vocabulary is never sorted
    whole: a few of the largest weights have the wanted share most of the time.
    """
    size = weights.size
    most = size if options.top_k is None else min(options.top_k, size)
    total = weights.sum() if most == size else None
    count = min(most, _FIRST_CANDIDATES)
    while True:
        kept = _largest(weights, count)
        sums = np.cumsum(weights[kept])
        if count == most:
            total = sums[-1]
        if total is not None and sums[-1] >= options.top_p * total:
            enough = int(np.searchsorted(sums, options.top_p * total, side="left")) + 1
            return kept[:enough]
        count = most if total is None else min(most, 4 * count)


def _largest(weights: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """The indices of the ``count`` largest weights in descending order, ties by index."""
    found = np.arange(weights.size)
    blocks = weights.size // _BLOCK
    if count < blocks:
        # So many blocks hold a weight of at least this, so the wanted ones are among these.
        largest = weights[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
        found = np.flatnonzero(weights >= np.partition(largest, -count)[-count])
    if count < found.size:
        # All that tie with the last one come along, so that which are kept is well defined.
        among = weights[found]
        found = found[among >= np.partition(among, -count)[-count]]
    order = np.argsort(-weights[found], kind="stable")
    return found[order[:count]]
