"""Makes one stage's result, or finds it in the store."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.errors import BuildError, EdgecError
from edgec.pipeline.entry import LOG, OUT, Entry
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
from edgec.pipeline.failures import describe_exit, log_remedy, storing
from edgec.pipeline.process import TimeLimit, WorkerDied, WorkerProcess
from edgec.pipeline.sources import Sources
from edgec.pipeline.stage import StageIdentity, StageSpec, code_digests
from edgec.pipeline.store import Store, stage_key
from edgec.pipeline.trees import remove_tree

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path


@dataclass(frozen=True)
class StageResult:
    """A stage's result in the store.

    Attributes:
        name: the stage's name.
        digest: the sha256 that names the result, 64 hex digits.
        path: the directory with its outputs.
        hit: whether it was there already.
        seconds: wall-clock time that this build spent on it; 0 for a hit.
    """

    name: str
    digest: str
    path: Path
    hit: bool
    seconds: float


@dataclass(frozen=True)
class Task:
    """One stage of a build, with the outputs of its parents."""

    spec: StageSpec
    identity: StageIdentity
    digest: str
    parents: Mapping[str, Path]

    @property
    def key(self) -> str:
        """The name of the result's lock and temporary directories."""
        return stage_key(self.spec.name, self.digest)


@dataclass(frozen=True)
class Builder:
    """Makes results in ``store`` for one build.

    Attributes:
        store: where results are looked up and put.
        events: told what happens; may be called from any thread.
        cancelled: set to call off everything.
        forced: names of stages whose results are made again although they are in the store.
    """

    store: Store
    events: Callable[[Event], None]
    cancelled: threading.Event
    forced: Collection[str]

    def make(self, task: Task, worker: WorkerProcess) -> StageResult:
        """Find the task's result or make it on ``worker``.

        Raises:
            EdgecError: if the stage fails, or the store can't be used.
            Cancelled: if the build was called off.
        """
        if (found := self._find(task)) is not None:
            return found
        with self._locked(task):
            if (found := self._find(task)) is not None:
                return found  # another build made it in the meantime
            self.events(StageStarted(task.spec.name, task.digest))
            started = time.monotonic()
            entry = self._run(task, worker, started)
            seconds = time.monotonic() - started
            self.events(StageFinished(task.spec.name, task.digest, seconds))
            return StageResult(task.spec.name, task.digest, entry.out, hit=False, seconds=seconds)

    def _find(self, task: Task) -> StageResult | None:
        if task.spec.name in self.forced:
            return None
        entry = self.store.lookup(task.spec.name, task.digest)
        if entry is None:
            return None
        self.store.touch(entry)
        self.events(StageHit(task.spec.name, task.digest))
        return StageResult(task.spec.name, task.digest, entry.out, hit=True, seconds=0.0)

    @contextlib.contextmanager
    def _locked(self, task: Task) -> Iterator[None]:
        lock = self.store.lock(
            task.key,
            on_wait=lambda pid: self.events(StageWaiting(task.spec.name, pid)),
            cancelled=self.cancelled,
        )
        with storing(self.store.root):
            lock.acquire()
        with contextlib.closing(lock):
            yield

    def _run(self, task: Task, worker: WorkerProcess, started: float) -> Entry:
        with storing(self.store.root):
            temporary = self.store.temporary(task.key)
        try:
            with storing(self.store.root):
                (temporary / OUT).mkdir()
                (temporary / LOG).touch()
            self._work(task, worker, temporary)
            _check_code(task)
            with storing(self.store.root):
                return self.store.commit(temporary, task.identity, time.monotonic() - started)
        finally:
            # After a success it isn't there any more. What can't be removed now is removed at
            # the beginning of the next build.
            with contextlib.suppress(OSError):
                remove_tree(temporary)

    def _work(self, task: Task, worker: WorkerProcess, temporary: Path) -> None:
        where = f"stage {task.spec.name}"
        try:
            final = worker.run(
                self._job(task, temporary),
                timeout_s=task.spec.timeout_s,
                on_event=lambda event: self.events(_event(task.spec.name, event)),
                cancelled=self.cancelled,
            )
        except WorkerDied as death:
            raise BuildError(
                f"its process {describe_exit(death.returncode)}",
                where=where,
                remedy=self._log_remedy(task, temporary),
            ) from None
        except TimeLimit:
            raise BuildError(
                f"it took longer than its time limit of {task.spec.timeout_s:g} s and was stopped",
                where=where,
                remedy=f"raise {task.spec.timeout_field}, or {self._log_remedy(task, temporary)}",
            ) from None
        if final["event"] == "error":
            self.store.keep_log(temporary, task.key)
            raise EdgecError.from_json(final["error"])
        if final["event"] == "exception":
            raise BuildError(
                f"it failed with {final['text']}",
                where=where,
                remedy=self._log_remedy(task, temporary),
            )

    def _job(self, task: Task, temporary: Path) -> dict[str, Any]:
        return {
            "module": task.spec.module,
            "out": temporary / OUT,
            "log": temporary / LOG,
            "cache": self.store.root,
            "inputs": task.identity.inputs,
            "local": task.spec.local,
            "parents": dict(task.parents),
        }

    def _log_remedy(self, task: Task, temporary: Path) -> str:
        return log_remedy(self.store.keep_log(temporary, task.key))


def _check_code(task: Task) -> None:
    """The worker imported the sources some time after they were digested.

    Raises:
        BuildError: if they were edited since, so that the result may belong to another digest.
    """
    code = code_digests(task.spec, Sources())
    if code != task.identity.code:
        changed = sorted(file for file, _ in code.items() ^ task.identity.code.items())
        raise BuildError(
            f"edgec's own source changed while it ran ({changed[0]})",
            where=f"stage {task.spec.name}",
            remedy="build again",
        )


def _event(name: str, event: dict[str, Any]) -> Event:
    match event["event"]:
        case "progress":
            return StageProgress(name, event["total"], event["unit"])
        case "advance":
            return StageAdvanced(name, event["amount"])
        case "note":
            return StageNote(name, event["text"])
        case other:
            raise AssertionError(f"unknown event from a worker: {other}")
