"""Print text while it is generated, and what it cost afterwards."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from edgec.cli.output import format_seconds, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

    from edgec.runtime.generate import GenerationStats, Token
    from edgec.runtime.speculative import SpeculationStats


class Stopped:
    """Whether the user asked to stop."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def ask(self) -> None:
        """Stop after the token that is computed now."""
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()


@contextmanager
def stoppable() -> Iterator[Stopped]:
    """Within it, the first Ctrl-C only asks to stop; a second one interrupts as usual."""
    stopped = Stopped()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.ask()

    if threading.current_thread() is not threading.main_thread():
        yield stopped  # signals are the main thread's
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def stream(steps: Iterable[Token], stopped: Stopped | None = None) -> GenerationStats | None:
    """Print text on stdout as it comes, and end its last line.

    Args:
        steps: from ``generate``.
        stopped: looked at after each token.

    Returns:
        The statistics; None if the user stopped it.
    """
    last = ""
    stats = None
    try:
        for step in steps:
            if step.text:
                last = step.text
                click.echo(step.text, nl=False)
                sys.stdout.flush()
            stats = step.stats
            if stopped:
                break
    finally:
        if not last.endswith("\n"):
            click.echo()
    return stats


def say_stats(stats: GenerationStats | None) -> None:
    """Print a line with counts and speed on stderr."""
    if stats is None:
        say(click.style("stopped", dim=True))
        return
    ends = {"length": " (the limit)", "context": " (the context is full)", "stop": ""}
    parts = [
        _count(stats.prompt_tokens, "prompt token"),
        f"first token after {_duration(stats.time_to_first_token)}",
        f"prefill {stats.prefill_rate:.0f} tok/s",
    ]
    if stats.decode_rate is not None:
        parts.append(f"decode {stats.decode_rate:.1f} tok/s")
    parts.append(_count(stats.generated_tokens, "token") + ends[stats.finish_reason])
    say(click.style(" · ".join(parts), dim=True))
    if stats.speculation is not None:
        say(click.style(_drafts(stats.speculation), dim=True))


def _drafts(stats: SpeculationStats) -> str:
    parts = [
        f"{stats.accepted} of {_count(stats.drafted, 'guessed token')} accepted",
        f"{stats.tokens_per_pass:.2f} tokens per pass",
    ]
    return " · ".join(parts)


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _duration(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else format_seconds(seconds)
