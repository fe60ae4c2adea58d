"""Tells of a build while it runs: live on a terminal, plain lines elsewhere, or as JSON lines."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from edgec.cli.board import Board, waiting_text
from edgec.cli.output import console, format_seconds, print_json_line, say
from edgec.cli.settings import settings
from edgec.pipeline.events import (
    Event,
    StageAdvanced,
    StageFinished,
    StageHit,
    StageNote,
    StageProgress,
    StageStarted,
    StageWaiting,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgec.progress import Progress

SCAN = "hash"
"""The name under which reading the model's files for their digests is reported."""

_FIRST_LINE_S = 5.0
_LONGEST_PAUSE_S = 60.0
_TICK_S = 1.0
_NAMES = {
    StageHit: "stage-hit",
    StageWaiting: "stage-waiting",
    StageStarted: "stage-started",
    StageProgress: "stage-progress",
    StageAdvanced: "stage-advanced",
    StageNote: "stage-note",
    StageFinished: "stage-finished",
}


class Reporter(Protocol):
    """Hears of a build's events, one at a time, from several threads."""

    def __call__(self, event: Event, /) -> None:
        """An event happened."""


@contextlib.contextmanager
def reporter(*, as_json: bool) -> Iterator[Reporter]:
    """The reporter that suits the options and stderr; at the end nothing live is left."""
    if as_json:
        yield JsonReporter()
    elif settings().quiet:
        yield _silent
    elif sys.stderr.isatty() and (screen := console()).is_terminal and not screen.is_dumb_terminal:
        from edgec.cli.live import LiveReporter  # noqa: PLC0415 - rich takes 60 ms

        with LiveReporter(screen) as live:
            yield live
    else:
        with PlainReporter() as plain:
            yield plain


def scan_progress(report: Reporter) -> Progress:
    """A ``Progress`` for reading the model's files, before there is any stage."""
    return _Scan(report)


def _silent(_event: Event) -> None:
    pass


class JsonReporter:
    """One JSON object per event on stdout."""

    def __call__(self, event: Event) -> None:
        """Print the event."""
        data = asdict(event)
        print_json_line({"event": _NAMES[type(event)], "stage": data.pop("name"), **data})


class PlainReporter:
    """A line when a stage begins to wait or ends, and now and then one for a long stage.

    The stages that were in the store are named once another one runs.
    """

    def __init__(self) -> None:
        self._board = Board()
        self._due: dict[str, float] = {}
        self._lock = threading.Lock()
        self._any_ran = False
        self._ended = threading.Event()
        self._clock = threading.Thread(target=self._run, name="progress lines", daemon=True)

    def __enter__(self) -> PlainReporter:  # noqa: PYI034 - Self needs Python 3.11
        self._clock.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._clock.join()

    def __call__(self, event: Event) -> None:
        """Print the line for an event, if it has one."""
        with self._lock:
            self._board.update(event)
            if isinstance(event, StageStarted | StageWaiting):
                self._due[event.name] = _FIRST_LINE_S
                self._any_ran = True
            if self._any_ran:
                self._print_hits()
            if isinstance(event, StageWaiting):
                say(f"{event.name}: {waiting_text(event)}")
            elif isinstance(event, StageFinished):
                say(f"{event.name}: done in {format_seconds(event.seconds)}")

    def tick(self, now: float) -> None:
        """Print a line for each stage that is due; the pauses grow to a minute.

        Args:
            now: seconds of the monotonic clock.
        """
        with self._lock:
            for row in self._board.rows.values():
                age = now - row.since
                due = self._due.setdefault(row.name, _FIRST_LINE_S)
                if age < due:
                    continue
                self._due[row.name] = due + min(age, _LONGEST_PAUSE_S)
                what = ", ".join(filter(None, (row.note, row.count))) or "running"
                say(f"{row.name}: {what} ({format_seconds(int(age))})")

    def _print_hits(self) -> None:
        for name in self._board.hits:
            say(f"{name}: cached")
        self._board.hits.clear()

    def _run(self) -> None:
        while not self._ended.wait(_TICK_S):
            self.tick(time.monotonic())


class _Scan:
    """Turns progress into events of a stage of its own."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._left = 0
        self._since = 0.0

    def start(self, total: int, unit: str) -> None:
        if not total:
            return
        with self._lock:
            self._left, self._since = total, time.monotonic()
            self._report(StageStarted(SCAN, ""))
            self._report(StageProgress(SCAN, total, unit))

    def advance(self, amount: int) -> None:
        with self._lock:
            self._left -= amount
            self._report(StageAdvanced(SCAN, amount))
            if self._left <= 0:
                self._report(StageFinished(SCAN, "", time.monotonic() - self._since))

    def note(self, text: str) -> None:
        self._report(StageNote(SCAN, text))
