"""What the system leaves to this process: processors and memory, containers' limits included.

A container sees all processors and all memory of its machine. What it may use of them stands in its
control group (cgroups, https://docs.kernel.org/admin-guide/cgroup-v2.html), where every group above
limits it as well.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT = Path("/")
_MANY = 1 << 62
"""Bytes; no limit in the first version of control groups is a number about as large."""


def allowed_cpus() -> list[int]:
    """Numbers of the processors that this process may run on, in ascending order."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Processors whose whole time the control groups allow, such as 1.5; None without a limit.

    Args:
        root: of the file system.
    """
    quotas = []
    for group in _groups(root, "cpu"):
        with suppress(OSError, ValueError, ZeroDivisionError):
            quota, period = (group / "cpu.max").read_text().split()
            if quota != "max":
                quotas.append(int(quota) / int(period))
        with suppress(OSError, ValueError, ZeroDivisionError):
            micros = int((group / "cpu.cfs_quota_us").read_text())
            if micros > 0:
                quotas.append(micros / int((group / "cpu.cfs_period_us").read_text()))
    return min(quotas, default=None)


def available_memory(root: Path = _ROOT) -> int:
    """Bytes that can be had without swapping; files that are only cached count as free.

    Where the system doesn't tell, it is as much as anybody asks for.

    Args:
        root: of the file system.
    """
    rooms = [math.inf]
    with suppress(OSError, ValueError, IndexError):
        rooms.append(_fields(root / "proc/meminfo", ":")["MemAvailable"] << 10)
    for group in _groups(root, "memory"):
        for most, used, cached in (
            ("memory.max", "memory.current", "file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
        ):
            with suppress(OSError, ValueError, IndexError):
                limit = int((group / most).read_text())  # "max" is none
                if limit < _MANY:
                    reclaimable = _fields(group / "memory.stat").get(cached, 0)
                    rooms.append(limit - int((group / used).read_text()) + reclaimable)
    room = min(rooms)
    return _MANY if room == math.inf else max(int(room), 0)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's control group and of those above it, of both versions."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            base = root / "sys/fs/cgroup" / controller
        else:
            continue
        # Inside of a container the path may be that of the machine, which isn't there.
        inner = base / path.lstrip("/")
        for group in (inner, *inner.parents):
            if group.is_relative_to(base):
                yield group


def _fields(path: Path, separator: str = " ") -> dict[str, int]:
    """Lines ``name number`` of a file."""
    fields = {}
    for line in path.read_text().splitlines():
        name, _, value = line.partition(separator)
        number = value.split()[0]
        if number.isdecimal():
            fields[name] = int(number)
    return fields
