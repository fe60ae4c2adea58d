"""Continue a prompt token by token."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from edgec.errors import UsageError
from edgec.models.window import SlidingWindow
from edgec.runtime.sampling import Sampler, SamplingOptions
from edgec.runtime.speculative import SpeculativeSequence
from edgec.runtime.stops import StopStrings
from edgec.runtime.tokenizer import Decoder, StreamDecoder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from edgec.runtime.embedded_images import Token as PromptToken
    from edgec.runtime.forward import Capacity
    from edgec.runtime.reuse import ReusableEngine
    from edgec.runtime.speculative import Speculation, SpeculationStats

FinishReason = Literal["stop", "length", "context"]


class TextEngine(Protocol):
    """What generation needs of :class:`edgec.runtime.engine.Engine`."""

    metadata: dict[str, Any]
    capacity: Capacity

    def add(self, sequence: int) -> None:
        """Start an empty sequence."""

    def remove(self, sequence: int) -> None:
        """Forget a sequence."""

    def prefill(self, sequence: int, tokens: Sequence[PromptToken]) -> npt.NDArray[np.float32]:
        """Append tokens; logits ``(vocab,)`` after the last one."""

    def decode(self, sequence: int, token: int) -> npt.NDArray[np.float32]:
        """Append one token; logits ``(vocab,)`` after it."""


@dataclass(frozen=True)
class GenerationStats:
    """What one generation was.

    Attributes:
        prompt_tokens: tokens of the prompt.
        generated_tokens: tokens that were generated, without one that ended the text.
        time_to_first_token: seconds from the start until the first token was chosen.
        prefill_rate: tokens of the prompt per second.
        decode_rate: tokens per second after the first; None if there was only one. The time that
            the caller spent between tokens doesn't count.
        finish_reason: ``"stop"`` at a stop token or string, ``"length"`` at the limit that was
            asked for, ``"context"`` when the context was full.
        speculation: what became of drafted tokens; None if none were wanted.
    """

    prompt_tokens: int
    generated_tokens: int
    time_to_first_token: float
    prefill_rate: float
    decode_rate: float | None
    finish_reason: FinishReason
    speculation: SpeculationStats | None = None


@dataclass(frozen=True)
class Token:
    """One step of a generation.

    Attributes:
        id: the token; None for the last step, which is no token.
        text: text that became certain with it; may be empty.
        stats: of the whole generation, in the last step.
    """

    id: int | None
    text: str
    stats: GenerationStats | None = None


def generate(
    engine: TextEngine,
    tokenizer: Decoder,
    prompt_ids: Sequence[PromptToken],
    options: SamplingOptions,
    *,
    max_tokens: int | None = None,
    stop_ids: Collection[int] = (),
    stop_strings: Sequence[str] = (),
    sequence: int = 0,
    speculation: Speculation | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Token]:
    """Continue a prompt.

    The texts of all steps together are the answer. Stop tokens and stop strings are not in it.
    The sequence is removed from the engine at the end, also if the caller stops early and closes
    the iterator.

    Args:
        engine: with room for one more sequence.
        tokenizer: makes text of tokens.
        prompt_ids: the prompt's tokens, at least one; rows of images may be among them.
        options: how tokens are chosen.
        max_tokens: most tokens to generate; None for as many as fit into the context, which has no
            end where a window slides.
        stop_ids: tokens that end the answer.
        stop_strings: texts that end the answer.
        sequence: the number that the sequence gets in the engine.
        speculation: to guess tokens and compute several at a time, which gives the same text; the
            engine then takes tokens back, as ``ReusableEngine`` describes.
        clock: gives the time in seconds.

    Returns:
        One item for each token, and a last one with the statistics.

    Raises:
        UsageError: the prompt is empty or longer than the context, a limit or stop string
            is impossible, or there is speculation with a library that doesn't suit it.
    """
    if not prompt_ids:
        raise UsageError("the prompt is empty", remedy="give some text to continue")
    if max_tokens is not None and max_tokens < 1:
        raise UsageError(
            f"{max_tokens} is out of range", where="max_tokens", remedy="give at least 1"
        )
    limit = max_tokens
    if SlidingWindow.of(engine.metadata) is None:
        fitting = _fitting(engine, len(prompt_ids))
        limit = fitting if max_tokens is None else min(max_tokens, fitting)
    if speculation is not None:
        engine = SpeculativeSequence(cast("ReusableEngine", engine), speculation, limit=limit)
    run = _Run(engine, tokenizer, options, StopStrings(stop_strings), sequence, clock)
    return run.steps(
        prompt_ids, frozenset(stop_ids), limit, "length" if limit == max_tokens else "context"
    )


def _fitting(engine: TextEngine, prompt: int) -> int:
    """How many tokens fit into the context behind a prompt."""
    room: int = min(engine.metadata["context_window_size"], engine.capacity.tokens)
    if prompt > room:
        over = prompt - room
        raise UsageError(
            f"the prompt has {prompt} tokens, {over} more than the context of {room}",
            remedy=f"shorten it by {over} tokens, or build with a larger context.length",
        )
    # The last token is chosen but never appended, so it needs no room.
    return room - prompt + 1


class _Run:
    """The state of one generation."""

    def __init__(
        self,
        engine: TextEngine,
        tokenizer: Decoder,
        options: SamplingOptions,
        stops: StopStrings,
        sequence: int,
        clock: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._speculative = engine if isinstance(engine, SpeculativeSequence) else None
        self._sampler = Sampler(options)
        self._decoder = StreamDecoder(tokenizer)
        self._stops = stops
        self._sequence = sequence
        self._clock = clock
        self._counts: Counter[int] = Counter()

    def steps(
        self,
        prompt: Sequence[PromptToken],
        stop_ids: frozenset[int],
        limit: int | None,
        at_limit: FinishReason,
    ) -> Iterator[Token]:
        self._engine.add(self._sequence)
        try:
            start = self._clock()
            logits = self._engine.prefill(self._sequence, prompt)
            prefilled = self._clock()
            token = self._sampler.sample(logits, self._counts)
            first = self._clock()
            decoding, decoded = 0.0, 0
            while token not in stop_ids:
                self._counts[token] += 1
                text = self._stops.push(self._decoder.push(token))
                yield Token(token, text)
                if self._stops.stopped or self._counts.total() == limit:
                    break
                before = self._clock()
                logits = self._engine.decode(self._sequence, token)
                token = self._sampler.sample(logits, self._counts)
                decoding += self._clock() - before
                decoded += 1
            rest = self._stops.push(self._decoder.finish()) + self._stops.finish()
            ended = token in stop_ids or self._stops.stopped
            yield Token(
                None,
                rest,
                GenerationStats(
                    prompt_tokens=len(prompt),
                    generated_tokens=self._counts.total(),
                    time_to_first_token=first - start,
                    prefill_rate=_rate(len(prompt), prefilled - start),
                    decode_rate=_rate(decoded, decoding) if decoded else None,
                    finish_reason="stop" if ended else at_limit,
                    speculation=None if self._speculative is None else self._speculative.stats,
                ),
            )
        finally:
            self._engine.remove(self._sequence)


def _rate(count: int, seconds: float) -> float:
    # A clock may be too coarse for the smallest models.
    return count / max(seconds, 1e-9)
