"""Measure a loaded artifact: time to the first token, rates, latency per token."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edgec.errors import UsageError
from edgec.models.window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from edgec.runtime.forward import Capacity

_SEQUENCE = 0
# Prompts are made of these: spread over the vocabulary, and the same on every machine.
_FIRST_ID = 17
_ID_STEP = 7919  # a prime, so that ids repeat only after the whole vocabulary


class BenchEngine(Protocol):
    """What is measured: :class:`edgec.runtime.engine.Engine`."""

    metadata: dict[str, Any]
    capacity: Capacity

    def add(self, sequence: int) -> None:
        """Start an empty sequence."""

    def remove(self, sequence: int) -> None:
        """Forget a sequence."""

    def prefill(self, sequence: int, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Append tokens; logits ``(vocab,)`` after the last one."""

    def decode(self, sequence: int, token: int) -> npt.NDArray[np.float32]:
        """Append one token; logits ``(vocab,)`` after it."""


@dataclass(frozen=True)
class Workload:
    """What one round does.

    Attributes:
        prompt_tokens: tokens of the prompt, which are prefilled.
        generate_tokens: tokens that are decoded one by one after the first, greedily.
        repeat: rounds that are measured. One more goes before them: it starts the threads and
            brings the weights into memory.
    """

    prompt_tokens: int = 128
    generate_tokens: int = 64
    repeat: int = 5


@dataclass(frozen=True)
class Round:
    """The times of one round.

    Attributes:
        first_token: seconds from an empty sequence to the first chosen token.
        latencies: seconds from one chosen token to the next.
    """

    first_token: float
    latencies: tuple[float, ...]


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of some values."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value, to 6 significant digits."""
        parts = (min(values), float(np.median(values)), max(values))
        return cls(*(float(f"{part:.6g}") for part in parts))


@dataclass(frozen=True)
class Measurement:
    """The results of all measured rounds.

    Attributes:
        workload: what each round did.
        first_round: seconds to the first token in the round that isn't counted.
        rounds: the measured ones.
    """

    workload: Workload
    first_round: float
    rounds: tuple[Round, ...]

    @property
    def time_to_first_token(self) -> Spread:
        """Seconds, over the rounds."""
        return Spread.of([item.first_token for item in self.rounds])

    @property
    def prefill_rate(self) -> Spread:
        """Tokens of the prompt per second until the first token, over the rounds."""
        return Spread.of([_rate(self.workload.prompt_tokens, r.first_token) for r in self.rounds])

    @property
    def decode_rate(self) -> Spread:
        """Tokens per second after the first, over the rounds."""
        return Spread.of([_rate(len(r.latencies), sum(r.latencies)) for r in self.rounds])

    def latency(self, percentile: float) -> Spread:
        """A percentile of a round's seconds per token, over the rounds."""
        return Spread.of([float(np.percentile(r.latencies, percentile)) for r in self.rounds])

    def to_json(self) -> dict[str, Any]:
        """Plain data; times in seconds, rates in tokens per second."""
        return {
            "workload": dict(vars(self.workload)),
            "first_round_time_to_first_token_s": float(f"{self.first_round:.6g}"),
            "time_to_first_token_s": dict(vars(self.time_to_first_token)),
            "prefill_tokens_per_s": dict(vars(self.prefill_rate)),
            "decode_tokens_per_s": dict(vars(self.decode_rate)),
            "token_latency_p50_s": dict(vars(self.latency(50))),
            "token_latency_p90_s": dict(vars(self.latency(90))),
        }


def measure(
    engine: BenchEngine,
    vocab_size: int,
    workload: Workload,
    *,
    clock: Callable[[], float] = time.perf_counter,
    on_round: Callable[[int], None] = lambda _round: None,
) -> Measurement:
    """Run the rounds.

    Args:
        engine: with room for one sequence.
        vocab_size: of the model, for the prompt's ids.
        workload: what to run.
        clock: gives the time in seconds.
        on_round: told the number of each round before it begins; 0 isn't counted.

    Raises:
        UsageError: the workload doesn't fit into the context.
    """
    needed = workload.prompt_tokens + workload.generate_tokens
    if SlidingWindow.of(engine.metadata) is None and needed > engine.capacity.tokens:
        raise UsageError(
            f"{workload.prompt_tokens} tokens of prompt and {workload.generate_tokens} generated"
            f" ones don't fit into the context of {engine.capacity.tokens}",
            where="bench",
            remedy="ask for fewer with --prompt-tokens and --generate-tokens",
        )
    prompt = prompt_ids(workload.prompt_tokens, vocab_size)
    rounds = []
    for number in range(workload.repeat + 1):
        on_round(number)
        rounds.append(_round(engine, prompt, workload.generate_tokens, clock))
    return Measurement(workload, rounds[0].first_token, tuple(rounds[1:]))


def prompt_ids(count: int, vocab_size: int) -> list[int]:
    """A prompt that is the same on every machine."""
    return [(_FIRST_ID + index * _ID_STEP) % vocab_size for index in range(count)]


def _round(
    engine: BenchEngine, prompt: Sequence[int], count: int, clock: Callable[[], float]
) -> Round:
    engine.add(_SEQUENCE)
    try:
        begun = clock()
        token = int(engine.prefill(_SEQUENCE, prompt).argmax())
        chosen = clock()
        first_token = chosen - begun
        latencies = []
        for _ in range(count):
            token = int(engine.decode(_SEQUENCE, token).argmax())
            now = clock()
            latencies.append(now - chosen)
            chosen = now
    finally:
        engine.remove(_SEQUENCE)
    return Round(first_token, tuple(latencies))


def _rate(count: int, seconds: float) -> float:
    # A clock may be too coarse for the smallest models.
    return count / max(seconds, 1e-9)
