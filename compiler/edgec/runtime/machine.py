"""What a measurement says of the machine and the process that it was made in."""

from __future__ import annotations

import platform
import resource
import sys
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_STATUS = Path("/proc/self/status")
# Names of the processor's model in /proc/cpuinfo; Arm kernels tell it in various places or nowhere.
_MODEL_FIELDS = ("model name", "Hardware", "Model")


def cpu_model(cpuinfo: Path = _CPUINFO) -> str:
    """The processor's name as its maker gives it, else the architecture."""
    fields = _fields(cpuinfo)
    for name in _MODEL_FIELDS:
        if fields.get(name):
            return fields[name]
    return platform.processor() or platform.machine()


def peak_rss(status: Path = _STATUS) -> int:
    """The largest resident memory that this process had so far, in bytes.

    On Linux it is read from ``/proc``: what ``getrusage`` says there begins with the size of the
    process that started this one.
    """
    amount = _fields(status).get("VmHWM", "").split()
    if len(amount) == 2 and amount[0].isdecimal():  # "52316 kB"
        return int(amount[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _fields(path: Path) -> dict[str, str]:
    """The ``name: value`` lines of a file of ``/proc``; of equal names the first."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    return fields
