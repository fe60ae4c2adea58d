"""Work that isn't a build, shown as a build's stages are."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from edgec.cli.reporter import reporter
from edgec.pipeline.events import (
    StageAdvanced,
    StageFinished,
    StageNote,
    StageProgress,
    StageStarted,
)
from edgec.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgec.cli.reporter import Reporter
    from edgec.progress import Progress


@contextlib.contextmanager
def task(name: str, *, as_json: bool) -> Iterator[Progress]:
    """Report on stderr that ``name`` runs, how far it is, and how long it took.

    Args:
        name: one word.
        as_json: report nothing, since the command prints one JSON object at its end.
    """
    if as_json:
        yield Silent()
        return
    started = time.monotonic()
    with reporter(as_json=False) as report:
        report(StageStarted(name, ""))
        yield _Task(name, report)
        report(StageFinished(name, "", time.monotonic() - started))


class _Task:
    """Turns progress into a stage's events."""

    def __init__(self, name: str, report: Reporter) -> None:
        self._name = name
        self._report = report

    def start(self, total: int, unit: str) -> None:
        self._report(StageProgress(self._name, total, unit))

    def advance(self, amount: int) -> None:
        self._report(StageAdvanced(self._name, amount))

    def note(self, text: str) -> None:
        self._report(StageNote(self._name, text))
