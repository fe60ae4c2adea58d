"""How two models' predictions on the same tokens differ, in one pass over the logits."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgec.errors import VerificationError
from edgec.parallel import Workspace
from edgec.verification.figures import BLOCK, bounded_exp, require_finite, rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.verification.interfaces import Logits

Vector = npt.NDArray[np.float64]


class Comparison:
    """Collects statistics window by window; nothing of the size of the logits is kept.

    Everything is computed in float64 from logits less their row's maximum, so that neither the
    exponentials overflow nor the differences of nearly equal distributions cancel.

    Args:
        reference: what to call the first model in messages.
        other: what to call the second one.
    """

    def __init__(self, reference: str, other: str) -> None:
        self._names = (reference, other)
        self._workspace = Workspace()
        self._positions = 0
        self._same_first = 0
        self._divergence = 0.0
        self._largest_difference = 0.0
        self._largest_logit = 0.0
        self._losses = _Moments()
        self._differences = _Moments()

    def update(self, reference: Logits, other: Logits, tokens: Sequence[int]) -> None:
        """Add one window.

        Args:
            reference: ``(n, vocab)`` float32, the first model's logits after each token.
            other: the same of the second model.
            tokens: the window's ``n`` token ids; all but the first are predicted.

        Raises:
            VerificationError: the shapes differ, or a logit isn't a finite number.
        """
        if reference.shape != other.shape:
            raise VerificationError(
                f"{self._names[0]} gives logits of shape {reference.shape},"
                f" {self._names[1]} {other.shape}",
                remedy="compare only what belongs to the same model",
            )
        count, vocabulary = reference.shape
        assert count == len(tokens), (count, len(tokens))
        for logits, name in zip((reference, other), self._names, strict=True):
            require_finite(logits, name)
        following = np.asarray(tokens[1:], np.int64)
        step = max(1, BLOCK // vocabulary)
        for start in range(0, count, step):
            rows = slice(start, min(start + step, count))
            self._add_rows(reference[rows], other[rows], following[rows])
        self._positions += count

    def summary(self) -> dict[str, float]:
        """The figures so far, floats rounded to 6 significant digits.

        * ``positions``, ``predictions``: how many logit rows, and how many next tokens.
        * ``max_logit_error``: largest ``|difference of logits|``.
        * ``logit_scale``: largest magnitude of the reference's logits.
        * ``kl``: mean Kullback-Leibler divergence KL(reference || other) per position, in nats.
        * ``top1``: share of positions at which both put the same token first.
        * ``reference_perplexity``, ``perplexity``: of the text, for each model.
        * ``perplexity_ratio``: other / reference, the exponential of the mean difference of the
          tokens' negative log likelihoods.
        * ``perplexity_ratio_error``: standard error of that ratio by the delta method, ratio times
          the standard error of the mean difference, which takes tokens as independent; 0 for a
          single prediction, which shows no spread.
        """
        assert self._differences.count, "no window of two tokens was added"
        ratio = bounded_exp(self._differences.mean)
        error = ratio * self._differences.standard_error
        figures = {
            "max_logit_error": self._largest_difference,
            "logit_scale": self._largest_logit,
            "kl": max(0.0, self._divergence / self._positions),
            "top1": self._same_first / self._positions,
            "reference_perplexity": bounded_exp(self._losses.mean),
            "perplexity": bounded_exp(self._losses.mean + self._differences.mean),
            "perplexity_ratio": ratio,
            "perplexity_ratio_error": min(error, sys.float_info.max),
        }
        counts = {"positions": self._positions, "predictions": self._differences.count}
        return {**counts, **{name: rounded(value) for name, value in figures.items()}}

    def _add_rows(self, reference: Logits, other: Logits, following: npt.NDArray[np.int64]) -> None:
        """Add a block of rows; ``following`` may be one shorter than the block."""
        shape = reference.shape
        first, second, scratch = (
            self._workspace.array(name, shape, np.float64)
            for name in ("first", "second", "scratch")
        )
        np.subtract(reference, other, out=scratch, dtype=np.float64)
        self._largest_difference = max(
            self._largest_difference, float(scratch.max()), -float(scratch.min())
        )
        self._largest_logit = max(
            self._largest_logit, float(reference.max()), -float(reference.min())
        )
        self._same_first += int(np.sum(reference.argmax(axis=1) == other.argmax(axis=1)))

        first_log_sum = _shift(reference, first, scratch)
        second_log_sum = _shift(other, second, scratch)
        predicted = np.arange(len(following)), following
        losses = first_log_sum[: len(following)] - first[predicted]
        other_losses = second_log_sum[: len(following)] - second[predicted]
        self._losses.add(losses)
        self._differences.add(other_losses - losses)

        # KL = sum over tokens of p * (log p - log q), where log p = first - first_log_sum.
        np.exp(first, out=scratch)
        first -= second
        first *= scratch
        means = first.sum(axis=1) / scratch.sum(axis=1)
        self._divergence += float(np.sum(means + second_log_sum - first_log_sum))


class _Moments:
    """Count, mean and spread of numbers that come in batches (Chan, Golub, LeVeque 1983)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, values: Vector) -> None:
        """Add a batch, which may be empty."""
        if not values.size:
            return
        mean = float(values.mean())
        squares = float(np.sum((values - mean) ** 2))
        total = self.count + values.size
        apart = mean - self.mean
        self._squares += squares + apart * apart * self.count * values.size / total
        self.mean += apart * values.size / total
        self.count = total

    @property
    def standard_error(self) -> float:
        """Of the mean; 0 for a single value."""
        return math.sqrt(self._squares / (max(1, self.count - 1) * self.count))


def _shift(logits: Logits, out: Vector, scratch: Vector) -> Vector:
    """Put logits less their row's maximum into ``out``; the log of their sum of exponentials."""
    np.subtract(logits, logits.max(axis=1, keepdims=True), out=out, dtype=np.float64)
    np.exp(out, out=scratch)
    log_sum: Vector = np.log(scratch.sum(axis=1))
    return log_sum
