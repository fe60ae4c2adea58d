"""Speculative decoding without a second model: several tokens in one pass, if they can be guessed.

What a prompt or the text so far suggests (:mod:`edgec.runtime.ngram`) is appended together with the
last token in one pass, which costs little more than a single step where weights are read from
memory anyway (https://arxiv.org/abs/2211.17192). Tokens are still chosen one by one, each from the
logits that follow the one before. As long as the choice is what was guessed, the next logits are
there already; else what was guessed is taken back.

A guess has no distribution of its own: it is one token for certain. Then accepting it with its
probability, and else choosing among the other tokens, is the same as choosing among all tokens and
looking whether it is the one. So every way to sample is left as it is, the random numbers included.

Only libraries are taken that give the same logits for a token in whatever pass it comes, bit for bit: what
``exact_verification`` in their metadata says. Then text, random numbers and what is left in the KV cache are
those of single steps, and nothing has to be weighed or computed again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.artifacts.library_metadata import EXACT_ROWS, EXACT_VERIFICATION
from edgec.errors import UsageError
from edgec.models.window import SlidingWindow
from edgec.runtime.draft_length import DraftLength
from edgec.runtime.ngram import NgramIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from edgec.runtime.embedded_images import Token
    from edgec.runtime.reuse import ReusableEngine

DRAFT_MAX = EXACT_ROWS - 1
"""Most tokens to draft: with the one before them the largest pass that is exact."""


@dataclass(frozen=True)
class SpeculationStats:
    """What speculation did in one generation.

    Attributes:
        passes: over drafted tokens.
        steps: single ones.
        drafted: tokens in ``passes`` that were guessed.
        accepted: of them, those that became part of the text.
    """

    passes: int = 0
    steps: int = 0
    drafted: int = 0
    accepted: int = 0

    @property
    def tokens_per_pass(self) -> float:
        """Tokens for each call of the model, after the first; 1 without speculation."""
        calls = self.passes + self.steps
        return (calls + self.accepted) / calls if calls else 1.0

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "tokens_per_pass": float(f"{self.tokens_per_pass:.6g}")}


class Speculation:
    """What is learnt about drafts, from one generation to the next.

    Args:
        draft_max: most tokens to draft.
        clock: gives the time in seconds.

    Attributes:
        draft_max: most tokens to draft.
        length: chooses how many.

    Raises:
        UsageError: ``draft_max`` isn't from 1 to ``DRAFT_MAX``.
    """

    def __init__(
        self, draft_max: int = DRAFT_MAX, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        if not 1 <= draft_max <= DRAFT_MAX:
            raise UsageError(
                f"{draft_max} is out of range",
                where="draft_max",
                remedy=f"give 1 to {DRAFT_MAX}",
            )
        self.draft_max = draft_max
        self.clock = clock
        self.length = DraftLength()


def require_no_window(config: Mapping[str, Any], where: str) -> None:
    """Refuse to speculate with a model whose tokens can't be taken back.

    Args:
        config: the chat config, or the metadata of the library.
        where: the artifact, for messages.

    Raises:
        UsageError: a window slides over the context.
    """
    window = SlidingWindow.of(config)
    if window is not None:
        raise UsageError(
            f"a window of {window.size} tokens slides over the context of this model, and what has"
            " pushed a token out of it can't be taken back when a guess was wrong",
            where=where,
            remedy="leave out speculative decoding, or build without context.sliding_window",
        )


def require_speculation(metadata: Mapping[str, Any], where: str) -> None:
    """Refuse to speculate with a library where guesses could change the text.

    Args:
        metadata: of the library.
        where: the artifact, for messages.

    Raises:
        UsageError: a window slides over the context, or the library doesn't promise that passes over several
            tokens give what single steps give.
    """
    require_no_window(metadata, where)
    if not metadata.get(EXACT_VERIFICATION):
        raise UsageError(
            "several tokens in one pass give other logits than one at a time in this library, so that"
            " guesses could change the text",
            where=where,
            remedy="leave out speculative decoding, or build for a CPU target",
        )


class SpeculativeSequence:
    """Looks like an engine to ``generate``, and computes some logits before they are asked for.

    When the sequence is removed, the engine holds exactly the tokens that were appended.

    Args:
        engine: with room for the sequence.
        speculation: what is known about drafts; it learns more.
        limit: tokens that will be generated at most; None for as many as fit.

    Raises:
        UsageError: the library is none to speculate with, see :func:`require_speculation`.
    """

    def __init__(
        self,
        engine: ReusableEngine,
        speculation: Speculation,
        *,
        limit: int | None = None,
    ) -> None:
        require_speculation(engine.metadata, "speculative decoding")
        self._engine = engine
        self._learnt = speculation
        self._clock = speculation.clock
        self._limit = limit
        self.metadata = engine.metadata
        self.capacity = engine.capacity
        self._room: int = min(engine.metadata["context_window_size"], engine.capacity.tokens)
        self._text = NgramIndex()
        self._generated = 0
        self._ahead = _Rows()  # in the cache, beyond the text
        self._counts: dict[str, int] = {}

    @property
    def stats(self) -> SpeculationStats:
        """Since the prefill."""
        return SpeculationStats(**self._counts)

    def add(self, sequence: int) -> None:
        """Start an empty sequence."""
        self._engine.add(sequence)

    def remove(self, sequence: int) -> None:
        """Forget the sequence, after what was guessed is taken back."""
        self._drop_ahead(sequence)
        self._engine.remove(sequence)

    def prefill(self, sequence: int, tokens: Sequence[Token]) -> npt.NDArray[np.float32]:
        """Append tokens; logits ``(vocab,)`` after the last one."""
        logits = self._engine.prefill(sequence, tokens)
        self._text = NgramIndex(tokens)
        self._generated = 0
        self._counts = {}
        return logits

    def decode(self, sequence: int, token: int) -> npt.NDArray[np.float32]:
        """Append one token; logits ``(vocab,)`` after it."""
        match = self._text.match
        right = self._text.append(token)
        if right is not None:
            self._learnt.length.observe(match, right)
        self._generated += 1
        known = self._ahead.after(token)
        if known is not None:
            self._count("accepted")
            return known
        self._drop_ahead(sequence)
        draft = self._draft()
        started = self._clock()
        if draft:
            rows = self._engine.all_logits(sequence, [token, *draft])
            self._ahead = _Rows(rows, draft)
            logits = _row(rows, 0)
        else:
            logits = self._engine.decode(sequence, token)
        self._learnt.length.timed(1 + len(draft), self._clock() - started)
        self._count("passes" if draft else "steps")
        self._count("drafted", len(draft))
        return logits

    def _draft(self) -> list[int]:
        """What to append after the last token."""
        most = min(
            self._learnt.draft_max,
            self._room - len(self._text.tokens),
            self.capacity.prefill_chunk - 1,
        )
        if self._limit is not None:
            # A pass gives one token more than it drafts.
            most = min(most, self._limit - self._generated - 1)
        if most < 1:
            return []
        return self._text.draft(self._learnt.length.choose(self._text.match, most))

    def _drop_ahead(self, sequence: int) -> None:
        """Take back what is in the cache and not in the text."""
        ahead, self._ahead = self._ahead, _Rows()
        if ahead.left:
            self._engine.pop(sequence, ahead.left)

    def _count(self, name: str, by: int = 1) -> None:
        self._counts[name] = self._counts.get(name, 0) + by


class _Rows:
    """Logits of a pass, of which the first is used at once and the others if the guesses are right.

    Args:
        rows: ``(1 + len(draft), vocab)``.
        draft: what was guessed; nothing where there was no pass.
    """

    def __init__(
        self, rows: npt.NDArray[np.float32] | None = None, draft: Sequence[int] = ()
    ) -> None:
        self._rows = rows
        self._draft = draft
        self._right = 0

    @property
    def left(self) -> int:
        """Tokens of the pass beyond those that were right."""
        return len(self._draft) - self._right

    def after(self, token: int) -> npt.NDArray[np.float32] | None:
        """The logits after the next token; None if it isn't what was guessed."""
        if self._rows is None or not self.left or self._draft[self._right] != token:
            return None
        self._right += 1
        return _row(self._rows, self._right)


def _row(rows: npt.NDArray[np.float32], index: int) -> npt.NDArray[np.float32]:
    row: npt.NDArray[np.float32] = rows[index]
    return row
