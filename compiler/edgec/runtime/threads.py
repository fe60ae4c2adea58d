"""How many threads TVM's pool gets."""

from __future__ import annotations

import os


def usable_cpus() -> int:
    """Processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(count: int | None = None) -> int:
    """Set the size of TVM's thread pool; must come before TVM's first parallel loop.

    TVM's own default is half of the processors, which on machines without hyper-threading leaves
    half of the memory bandwidth unused. ``TVM_NUM_THREADS`` in the environment wins over it.
    """
    chosen = count or int(os.environ.get("TVM_NUM_THREADS", "0")) or usable_cpus()
    os.environ["TVM_NUM_THREADS"] = str(chosen)
    return chosen
