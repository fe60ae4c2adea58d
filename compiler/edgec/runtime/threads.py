"""How many threads TVM's pool gets, and where they run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgec.errors import UsageError
from edgec.runtime.limits import allowed_cpus, cpu_quota

_VARIABLE = "TVM_NUM_THREADS"
_BINDING = "TVM_BIND_THREADS"
_SYSTEM = Path("/sys/devices")


@dataclass(frozen=True)
class Team:
    """Processors to compute on.

    Attributes:
        cpus: their numbers; all that the process may use unless some are too slow.
        threads: how many of them to use at once: one per core, as far as containers' quotas go.
    """

    cpus: tuple[int, ...]
    threads: int


def usable_cpus() -> int:
    """Processors whose whole time this process may use, containers' limits included."""
    return _within_quota(len(allowed_cpus()), cpu_quota())


def choose_team(cpus: list[int], quota: float | None, system: Path = _SYSTEM) -> Team:
    """The processors that compute a model fastest together.

    A parallel loop gives every thread an equal part and ends with the slowest. So of processors of
    different speed those are taken whose number times the speed of the slowest is largest. Two
    hardware threads of a core share its units, so one thread per core is as fast.

    Args:
        cpus: that the process may use.
        quota: processors whose whole time it may use; None for all.
        system: folder in which Linux describes processors; where it isn't, all count alike.
    """
    speeds = _speeds(cpus, system)
    best: tuple[float, Team] | None = None
    for slowest in sorted(set(speeds.values()), reverse=True):
        taken = [cpu for cpu in cpus if speeds[cpu] >= slowest]
        cores = len({_core(cpu, system) for cpu in taken})
        rate = cores * slowest
        if best is None or rate > best[0]:
            best = (rate, Team(tuple(taken), cores))
    assert best is not None, "a process runs on some processor"
    return Team(best[1].cpus, _within_quota(best[1].threads, quota))


def set_threads(count: int | None = None) -> int:
    """Set the size of TVM's thread pool; must come before TVM's first parallel loop.

    TVM's own default is half of the processors, which on machines without hyper-threading leaves
    half of the memory bandwidth unused. It also binds each thread to a processor, by numbers from 0
    on whatever the process may use, where a thread then waits for what else runs there. Here the
    system places threads, unless ``TVM_BIND_THREADS`` says otherwise.

    Args:
        count: the size; None for that of ``TVM_NUM_THREADS`` in the environment, else what
            :func:`choose_team` says. Then the calling thread and those that it starts stay on the
            processors of this choice.

    Returns:
        The size. ``TVM_NUM_THREADS`` is set to it, for TVM and for later calls.

    Raises:
        UsageError: ``TVM_NUM_THREADS`` is no positive whole number.
    """
    chosen = count or _from_environment()
    if chosen is None:
        cpus = allowed_cpus()
        team = choose_team(cpus, cpu_quota())
        chosen = team.threads
        if len(team.cpus) < len(cpus) and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, team.cpus)
    os.environ[_VARIABLE] = str(chosen)
    os.environ.setdefault(_BINDING, "0")
    return chosen


def _within_quota(count: int, quota: float | None) -> int:
    # Threads wait for each other actively, so one too many costs more than one too few.
    return count if quota is None else max(1, min(count, int(quota)))


def _speeds(cpus: list[int], system: Path) -> dict[int, float]:
    """Speeds of processors in units of their own.

    Intel's processors with two kinds of cores name the fast ones; Arm's kernels know the capacity of
    each. Frequencies say little: cores that differ do different work in a cycle.
    """
    fast = _numbers(system / "cpu_core/cpus")
    if fast:
        # Decoding is bound by memory, which the fast ones exhaust: small ones only if there are no others.
        return {cpu: float(cpu in fast) for cpu in cpus}
    return {cpu: _number(_folder(cpu, system) / "cpu_capacity", 1) for cpu in cpus}


def _core(cpu: int, system: Path) -> tuple[int, ...]:
    siblings = _numbers(_folder(cpu, system) / "topology/thread_siblings_list")
    return tuple(sorted(siblings)) or (cpu,)


def _folder(cpu: int, system: Path) -> Path:
    return system / f"system/cpu/cpu{cpu}"


def _number(path: Path, default: int) -> float:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return default


def _numbers(path: Path) -> set[int]:
    """A list such as ``0-3,8``; empty if it can't be read."""
    found: set[int] = set()
    try:
        for part in path.read_text().strip().split(","):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    except (OSError, ValueError):
        return set()
    return found


def _from_environment() -> int | None:
    text = os.environ.get(_VARIABLE, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise UsageError(
            f"{text[:80]!r} is not a positive whole number",
            where=_VARIABLE,
            remedy="unset it, or set it to the number of threads",
        )
    return int(text)
