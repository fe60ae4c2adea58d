"""What is known of the stages of a running build, from its events."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from edgec.cli.output import format_bytes
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


def waiting_text(event: StageWaiting) -> str:
    """Who is waited for."""
    return "waiting for another build" + (f" (pid {event.pid})" if event.pid else "")


@dataclass
class Row:
    """One stage that runs, or waits for another build.

    Attributes:
        name: the stage's name.
        since: when it began, in seconds of the monotonic clock.
        note: what it does now.
        done: of ``total``.
        total: of ``unit``; 0 if nothing is counted.
        unit: ``"bytes"``, ``"tensors"``, ...
    """

    name: str
    since: float
    note: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""

    @property
    def share(self) -> float:
        """How much is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0

    @property
    def count(self) -> str:
        """What is done, as text; empty if nothing is counted."""
        if not self.total:
            return ""
        if self.unit == "bytes":
            return f"{format_bytes(self.done)} of {format_bytes(self.total)}"
        return f"{self.done} of {self.total} {self.unit}"


@dataclass
class Board:
    """The stages that run now, by name; ``hits`` are those that were in the store."""

    rows: dict[str, Row] = field(default_factory=dict)
    hits: list[str] = field(default_factory=list)

    def update(self, event: Event) -> None:
        """Take an event in."""
        if isinstance(event, StageHit):
            self.rows.pop(event.name, None)
            self.hits.append(event.name)
        elif isinstance(event, StageFinished):
            self.rows.pop(event.name, None)
        elif isinstance(event, StageStarted):
            self.rows[event.name] = Row(event.name, time.monotonic())
        else:
            row = self.rows.setdefault(event.name, Row(event.name, time.monotonic()))
            if isinstance(event, StageWaiting):
                row.note = waiting_text(event)
            elif isinstance(event, StageNote):
                row.note = event.text
            elif isinstance(event, StageProgress):
                row.done, row.total, row.unit = 0, event.total, event.unit
            elif isinstance(event, StageAdvanced):
                row.done += event.amount
