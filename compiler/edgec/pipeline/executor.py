"""Runs the stages of a build in the order of their dependencies, independent ones side by side."""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.errors import UsageError
from edgec.pipeline.build import Builder, StageResult, Task
from edgec.pipeline.maintenance import sweep
from edgec.pipeline.process import WorkerProcess
from edgec.pipeline.stage import StageIdentity, StageSpec, digests, identify, ordered

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from edgec.pipeline.events import Event
    from edgec.pipeline.store import Store


def execute(
    specs: Sequence[StageSpec],
    store: Store,
    *,
    events: Callable[[Event], None],
    force: bool = False,
    force_stages: Collection[str] = (),
    until: str | None = None,
    jobs: int = 2,
) -> dict[str, StageResult]:
    """Make the results of all stages, or find them in the store.

    The first failure, or an interrupt, kills the stages that run; nothing half-made stays.

    Args:
        specs: the stages, in any order.
        store: where results are looked up and put.
        events: told what happens, one event at a time, but from several threads.
        force: make results again that are in the store.
        force_stages: the same for the stages of these names.
        until: run only this stage and those it needs.
        jobs: how many stages may run at the same time, each in a process of its own.

    Returns:
        Results by stage name, parents first. Hold ``store.in_use()`` around the call and the use
        of the results, so that no clean-up removes them in between.

    Raises:
        EdgecError: the first failure of a stage, of the store, or of the environment.
        UsageError: if there is no stage ``until``.
    """
    chosen = _needed(ordered(specs), until)
    identities = identify(chosen)
    with store.in_use():
        sweep(store)
        turn = threading.Lock()

        def one_at_a_time(event: Event) -> None:
            with turn:
                events(event)

        forced = {spec.name for spec in chosen} if force else force_stages
        builder = Builder(store, one_at_a_time, threading.Event(), forced)
        results = _run_all(chosen, identities, builder, max(1, jobs))
    return {spec.name: results[spec.name] for spec in chosen}


def status(specs: Sequence[StageSpec], store: Store) -> list[tuple[StageSpec, str, bool]]:
    """For each stage, parents first: its digest, and whether its result is in the store.

    Raises:
        ToolchainError: if a distribution isn't installed.
        CacheError: if the store can't be read.
    """
    names = digests(specs)
    return [
        (spec, names[spec.name], store.lookup(spec.name, names[spec.name]) is not None)
        for spec in ordered(specs)
    ]


def _needed(specs: list[StageSpec], until: str | None) -> list[StageSpec]:
    if until is None:
        return specs
    by_name = {spec.name: spec for spec in specs}
    if until not in by_name:
        raise UsageError(
            f"there is no stage {until!r}", remedy=f"choose one of {', '.join(by_name)}"
        )
    needed = {until}
    for spec in reversed(specs):
        if spec.name in needed:
            needed.update(spec.parents)
    return [spec for spec in specs if spec.name in needed]


@dataclass(frozen=True)
class _Outcome:
    slot: _Slot
    task: Task
    result: StageResult | BaseException


class _Slot(threading.Thread):
    """A thread with a worker process of its own; takes one task at a time."""

    def __init__(self, builder: Builder, outbox: queue.SimpleQueue[_Outcome]) -> None:
        super().__init__(name="stage")
        self.inbox: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._builder = builder
        self._outbox = outbox

    def run(self) -> None:
        with contextlib.closing(WorkerProcess(self._builder.store)) as worker:
            while (task := self.inbox.get()) is not None:
                self._outbox.put(_Outcome(self, task, self._make(task, worker)))

    def _make(self, task: Task, worker: WorkerProcess) -> StageResult | BaseException:
        try:
            return self._builder.make(task, worker)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            return error


def _run_all(
    specs: list[StageSpec], identities: dict[str, StageIdentity], builder: Builder, jobs: int
) -> dict[str, StageResult]:
    results: dict[str, StageResult] = {}
    waiting = list(specs)
    outbox: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
    with _slots(min(jobs, len(specs)), builder, outbox) as idle:
        while len(results) < len(specs):
            for spec in [spec for spec in waiting if set(spec.parents) <= results.keys()]:
                if not idle:
                    break
                waiting.remove(spec)
                # The last one that became idle: its worker has loaded most modules already.
                idle.pop().inbox.put(_task(spec, identities[spec.name], results))
            outcome = outbox.get()
            if isinstance(outcome.result, BaseException):
                raise outcome.result
            results[outcome.task.spec.name] = outcome.result
            idle.append(outcome.slot)
    return results


def _task(spec: StageSpec, identity: StageIdentity, results: dict[str, StageResult]) -> Task:
    parents = {name: results[name].path for name in spec.parents}
    return Task(spec, identity, identity.digest, parents)


@contextlib.contextmanager
def _slots(
    count: int, builder: Builder, outbox: queue.SimpleQueue[_Outcome]
) -> Iterator[list[_Slot]]:
    """Idle slots; at the end, whatever way it is reached, running stages are killed."""
    slots = [_Slot(builder, outbox) for _ in range(count)]
    try:
        for slot in slots:
            slot.start()
        yield list(slots)
    finally:
        builder.cancelled.set()
        for slot in slots:
            slot.inbox.put(None)
        for slot in slots:
            if slot.ident is not None:  # an interrupt may come before the last one has started
                slot.join()
