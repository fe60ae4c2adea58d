"""Whether two ways to compute logits give the same most likely token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

# Rows of logits to compare before anything is concluded from them.
_ENOUGH = 12
# Differences are trusted to stay below this multiple of the largest that was seen.
_SAFETY = 8.0
# Where activations are rounded to 8 bits, two ways may differ by this part of the largest logit: twice what
# was seen in a trained model of six layers, over 2000 tokens. See docs/decisions/0026-rounded-activations.md.
_ROUNDED = 4e-2
# And this multiple of what was seen: how large such differences become hardly changes.
_SAFETY_ROUNDED = 1.5


class Agreement:
    """Compares the logits of passes over several tokens with those of single steps.

    Kernels for one row and for several may sum in different orders, so the same logits differ by
    rounding, and so does what is left in the KV cache. The difference is measured on the text at
    hand. Where it never was any, the kernels are taken to agree bit for bit.

    Kernels that round activations to 8 bits differ by next to nothing until an activation falls on the
    other side of a step, and by a lot from then on. A few rows don't show that, so it is presumed.

    Attributes:
        rounds: whether the kernels round activations.
        rows: how many were compared.
        largest: ``max |difference|`` of all of them.
    """

    def __init__(self) -> None:
        self.rounds = False
        self._scale = 0.0
        self.rows = 0
        self.largest = 0.0
        self._most_tokens = 0
        self._longest = 0

    def note(
        self,
        one: npt.NDArray[np.float32],
        other: npt.NDArray[np.float32],
        *,
        tokens: int = 0,
        length: int = 0,
    ) -> None:
        """Compare logits ``(vocab,)`` of a pass and of a single step.

        Args:
            one: of the one.
            other: of the other.
            tokens: of the pass; 0 if it isn't meant to show what such passes do.
            length: of the sequence.
        """
        with np.errstate(invalid="ignore"):
            differences = np.abs(one - other)
        differences[one == other] = 0  # tokens that are excluded are infinitely unlikely
        if self.rounds:
            self._scale = max(self._scale, float(np.abs(other[np.isfinite(other)]).max(initial=0)))
        self.rows += 1
        self.largest = max(self.largest, float(differences.max()))
        self._most_tokens = max(self._most_tokens, tokens)
        self._longest = max(self._longest, length)

    def known(self, tokens: int, length: int) -> bool:
        """Whether enough was compared to judge a pass over so many tokens of such a sequence.

        Other kernels may come with more tokens, and other sums with a longer sequence.
        """
        return self.rows >= _ENOUGH and tokens <= self._most_tokens and length <= 2 * self._longest

    @property
    def doubtful(self) -> float:
        """A most likely token that leads the next one by no more might not be it; 0 if each is.

        Twice the trusted difference, since one may be too high and the other too low.
        """
        safety = _SAFETY_ROUNDED if self.rounds else _SAFETY
        return 2 * max(safety * self.largest, _ROUNDED * self._scale)
