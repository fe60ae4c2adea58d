"""How many threads TVM's pool gets."""

from __future__ import annotations

import os

from edgec.errors import UsageError

_VARIABLE = "TVM_NUM_THREADS"


def usable_cpus() -> int:
    """Processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(count: int | None = None) -> int:
    """Set the size of TVM's thread pool; must come before TVM's first parallel loop.

    TVM's own default is half of the processors, which on machines without hyper-threading leaves
    half of the memory bandwidth unused.

    Args:
        count: the size; None for that of ``TVM_NUM_THREADS`` in the environment, else one thread
            per usable processor.

    Returns:
        The size. ``TVM_NUM_THREADS`` is set to it, for TVM and for later calls.

    Raises:
        UsageError: ``TVM_NUM_THREADS`` is no positive whole number.
    """
    chosen = count or _from_environment() or usable_cpus()
    os.environ[_VARIABLE] = str(chosen)
    return chosen


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
