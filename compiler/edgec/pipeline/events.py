"""What a build reports while it runs. The executor sends one event at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageHit:
    """The stage's result was in the store; nothing ran."""

    name: str
    digest: str


@dataclass(frozen=True)
class StageWaiting:
    """Another build makes this very result; ``pid`` is its process, if known."""

    name: str
    pid: int | None

    def __str__(self) -> str:
        holder = "" if self.pid is None else f" (pid {self.pid})"
        return f"waiting for another build of stage {self.name}{holder}"


@dataclass(frozen=True)
class StageStarted:
    """The stage begins to run."""

    name: str
    digest: str


@dataclass(frozen=True)
class StageProgress:
    """The stage begins to count: ``total`` of ``unit`` are to be done."""

    name: str
    total: int
    unit: str


@dataclass(frozen=True)
class StageAdvanced:
    """``amount`` more units are done."""

    name: str
    amount: int


@dataclass(frozen=True)
class StageNote:
    """One line about what the stage does now."""

    name: str
    text: str


@dataclass(frozen=True)
class StageFinished:
    """The stage ran and its result is in the store; ``seconds`` of wall-clock time."""

    name: str
    digest: str
    seconds: float


Event = (
    StageHit
    | StageWaiting
    | StageStarted
    | StageProgress
    | StageAdvanced
    | StageNote
    | StageFinished
)
