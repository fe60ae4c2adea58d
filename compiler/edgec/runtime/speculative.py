"""Speculative decoding without a second model: several tokens in one pass, if they can be guessed.

What a prompt or the text so far suggests (:mod:`edgec.runtime.ngram`) is appended together with the
last token in one pass, which costs little more than a single step where weights are read from
memory anyway (https://arxiv.org/abs/2211.17192). Tokens are still chosen one by one, each from the
logits that follow the one before. As long as the choice is what was guessed, the next logits are
there already; else what was guessed is taken back.

A guess has no distribution of its own: it is one token for certain. Then accepting it with its
probability, and else choosing among the other tokens, is the same as choosing among all tokens and
looking whether it is the one. So every way to sample is left as it is, the random numbers included.

Greedy decoding gives exactly the tokens that single steps give from the same KV cache. Passes over
several tokens round differently than single steps, which could turn the order of two tokens that
are all but equally likely. :mod:`edgec.runtime.agreement` measures by how much. Where the first
token leads the second by less, all that came from such passes is computed again by single steps.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.artifacts.library_metadata import rounds_activations
from edgec.errors import UsageError
from edgec.models.window import SlidingWindow
from edgec.runtime.agreement import Agreement
from edgec.runtime.draft_length import DraftLength
from edgec.runtime.ngram import NgramIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from edgec.runtime.embedded_images import Token
    from edgec.runtime.reuse import ReusableEngine

DRAFT_MAX = 15
"""Most tokens to draft unless asked otherwise: with the one before them a pass of 16."""


@dataclass(frozen=True)
class SpeculationStats:
    """What speculation did in one generation.

    Attributes:
        passes: over drafted tokens.
        steps: single ones, those of ``repeated_tokens`` not counted.
        probes: passes only to compare them with the single steps that followed.
        drafted: tokens in ``passes`` that were guessed.
        accepted: of them, those that became part of the text.
        repeats: times that two tokens were too close to tell by the logits of a pass.
        repeated_tokens: that were computed again, by single steps, for it.
    """

    passes: int = 0
    steps: int = 0
    probes: int = 0
    drafted: int = 0
    accepted: int = 0
    repeats: int = 0
    repeated_tokens: int = 0

    @property
    def tokens_per_pass(self) -> float:
        """Tokens for each call of the model, after the first; 1 without speculation."""
        calls = self.passes + self.steps + self.probes + self.repeated_tokens
        return (self.passes + self.steps + self.accepted) / calls if calls else 1.0

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
        agreement: between passes over several tokens and single steps.

    Raises:
        UsageError: ``draft_max`` isn't positive.
    """

    def __init__(
        self, draft_max: int = DRAFT_MAX, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        if draft_max < 1:
            raise UsageError(
                f"{draft_max} is out of range", where="draft_max", remedy="give at least 1"
            )
        self.draft_max = draft_max
        self.clock = clock
        self.length = DraftLength()
        self.agreement = Agreement()


def require_speculation(metadata: Mapping[str, Any], where: str) -> None:
    """Refuse to speculate with a model whose tokens can't be taken back.

    Args:
        metadata: of the library, or the chat config.
        where: the artifact, for messages.

    Raises:
        UsageError: a window slides over the context.
    """
    window = SlidingWindow.of(metadata)
    if window is not None:
        raise UsageError(
            f"a window of {window.size} tokens slides over the context of this model, and what has"
            " pushed a token out of it can't be taken back when a guess was wrong",
            where=where,
            remedy="leave out speculative decoding, or build without context.sliding_window",
        )


class SpeculativeSequence:
    """Looks like an engine to ``generate``, and computes some logits before they are asked for.

    When the sequence is removed, the engine holds exactly the tokens that were appended.

    Args:
        engine: with room for the sequence.
        speculation: what is known about drafts; it learns more.
        exact: whether choices have to be those of single steps: for greedy decoding.
        limit: tokens that will be generated at most; None for as many as fit.

    Raises:
        UsageError: a window slides over the engine's sequences.
    """

    def __init__(
        self,
        engine: ReusableEngine,
        speculation: Speculation,
        *,
        exact: bool,
        limit: int | None = None,
    ) -> None:
        require_speculation(engine.metadata, "speculative decoding")
        self._engine = engine
        self._learnt = speculation
        speculation.agreement.rounds = rounds_activations(engine.metadata)
        self._clock = speculation.clock
        self._exact = exact
        self._limit = limit
        self.metadata = engine.metadata
        self.capacity = engine.capacity
        self._room: int = min(engine.metadata["context_window_size"], engine.capacity.tokens)
        self._text = NgramIndex()
        self._generated = 0
        self._steady = 0  # tokens from the start whose part of the cache comes from single steps
        self._ahead = _Rows()  # in the cache, beyond the text
        self._probe = _Rows()  # not in the cache, to be compared with single steps
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
        self._steady = len(tokens)
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
        probed = self._probe.after(token)
        if probed is None or self._trusts(self._probe.size):
            self._probe, probed = _Rows(), None
            draft = self._draft()
            if draft:
                tokens = [token, *draft]
                rows = self._pass(sequence, tokens)
                if self._trusts(len(tokens)):
                    self._count("passes")
                    self._count("drafted", len(draft))
                    self._ahead = _Rows(rows, draft)
                    return _row(rows, 0)
                # Single steps follow, so that there is something to compare with.
                self._engine.pop(sequence, len(tokens))
                self._count("probes")
                self._probe = _Rows(rows, draft)
                probed = _row(rows, 0)
        logits = self._step(sequence, token)
        if self._steady == self._length - 1:
            self._steady = self._length
        if probed is not None:
            self._compare_probe(probed, logits)
        return logits

    def doubts(self, lead: Callable[[], float]) -> bool:
        """Whether single steps might have given another most likely token.

        Args:
            lead: gives that of the most likely token's logit over the next one's.
        """
        if not self._exact or self._steady == self._length:
            return False
        limit = self._learnt.agreement.doubtful
        return limit > 0 and lead() <= limit

    def by_single_steps(
        self, sequence: int, logits: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.float32]:
        """Compute again what came from passes.

        Args:
            sequence: its number.
            logits: ``(vocab,)`` after the last token, as they are known.

        Returns:
            The same logits, from single steps.
        """
        self._drop_ahead(sequence)
        again = self._text.tokens[self._steady :]
        started = self._clock()
        self._engine.pop(sequence, len(again))
        for token in again:
            assert isinstance(token, int), "prompts don't come from passes"
            exact = self._engine.decode(sequence, token)
        self._learnt.length.repeated(0, self._clock() - started)
        self._steady = self._length
        self._count("repeats")
        self._count("repeated_tokens", len(again))
        self._learnt.agreement.note(logits, exact)
        return exact

    @property
    def _length(self) -> int:
        return len(self._text.tokens)

    def _draft(self) -> list[int]:
        """What to append after the last token."""
        most = min(
            self._learnt.draft_max,
            self._room - self._length,
            self.capacity.prefill_chunk - 1,
        )
        if self._limit is not None:
            # A pass gives one token more than it drafts.
            most = min(most, self._limit - self._generated - 1)
        if most < 1:
            return []
        return self._text.draft(self._learnt.length.choose(self._text.match, most))

    def _trusts(self, tokens: int) -> bool:
        """Whether a pass of so many can be judged."""
        return not self._exact or self._learnt.agreement.known(tokens, self._length)

    def _pass(self, sequence: int, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        started = self._clock()
        rows = self._engine.all_logits(sequence, tokens)
        self._learnt.length.timed(len(tokens), self._clock() - started)
        return rows

    def _step(self, sequence: int, token: int) -> npt.NDArray[np.float32]:
        started = self._clock()
        logits = self._engine.decode(sequence, token)
        self._learnt.length.timed(1, self._clock() - started)
        self._count("steps")
        return logits

    def _compare_probe(
        self, passed: npt.NDArray[np.float32], single: npt.NDArray[np.float32]
    ) -> None:
        self._learnt.agreement.note(passed, single, tokens=self._probe.size, length=self._length)

    def _drop_ahead(self, sequence: int) -> None:
        """Take back what is in the cache and not in the text."""
        ahead, self._ahead = self._ahead, _Rows()
        if ahead.size:
            self._learnt.length.repeated(ahead.used, 0)
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
    def size(self) -> int:
        """Tokens of the pass."""
        return 0 if self._rows is None else len(self._rows)

    @property
    def used(self) -> int:
        """Tokens of the pass that became part of the text."""
        return 1 + self._right

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
