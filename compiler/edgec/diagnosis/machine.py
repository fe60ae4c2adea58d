"""This machine: its processor, what can be built for it and run on it, its memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from edgec.diagnosis.check import Check
from edgec.emitters import toolchain
from edgec.errors import EdgecError, ToolchainError
from edgec.runtime.machine import cpu_model
from edgec.runtime.threads import usable_cpus
from edgec.standins import amx
from edgec.target import HOST, load_target, missing_features, resolve_host

if TYPE_CHECKING:
    from edgec.target import Target

_GIB = 1 << 30
_COMFORTABLE = 2 * _GIB
_EMITTERS = Path(toolchain.__file__).parent
# Where control groups keep the limit of a container, version 2 and version 1.
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def check_host() -> Check:
    """Which target is this machine?"""
    try:
        target = resolve_host()
    except ToolchainError as error:
        return Check(
            "host",
            "missing",
            f"{cpu_model()}: {error.what}",
            "a target that this processor can run",
            error.remedy,
        )
    return Check("host", "ok", f"{target} ({cpu_model()})")


def check_target(name: str) -> Check:
    """Can this target be built for, and run here?"""
    label = f"target {name}"
    try:
        target = load_target(name)
    except EdgecError as error:
        return Check(label, "missing", error.what, remedy=error.remedy)
    if not (_EMITTERS / f"{target.platform}.py").is_file():
        return Check(
            label, "missing", f"there is no emitter for {target.platform}", remedy="update edgec"
        )
    if target.standin != "native":
        return Check(
            label, "ok", f"builds here, verified with {target.standin} in the device's place"
        )
    own = f"{target.name}, " if name == HOST else ""
    missing = _missing(target)
    if missing is None:
        return Check(label, "warning", f"{own}builds here; unknown whether it runs here")
    if missing:
        found = f"{own}builds here, but doesn't run here: the processor lacks {', '.join(missing)}"
        if amx.emulated(missing):
            found += "; it is verified with them emulated"
        return Check(
            label,
            "warning",
            found,
            "these CPU features, to run and verify it here",
            "run and verify it on the device, or build for --target host",
        )
    return Check(label, "ok", f"{own}builds and runs here")


def check_memory(limits: tuple[Path, ...] = _LIMITS) -> Check:
    """Processors and memory, as far as a container's limits allow."""
    memory = psutil.virtual_memory()
    total = min([memory.total, *_container_limits(limits)])
    available = min(memory.available, total)
    found = f"{usable_cpus()} processors, {available / _GIB:.1f} GiB of {total / _GIB:.1f} GiB available"
    if available >= _COMFORTABLE:
        return Check("memory", "ok", found)
    needed = f"{_COMFORTABLE // _GIB} GiB, for models of a billion weights"
    return Check(
        "memory", "warning", found, needed, "close other programs, or use a larger machine"
    )


def _missing(target: Target) -> list[str] | None:
    """CPU features that this machine lacks; None if that can't be found out."""
    try:
        return missing_features(target)
    except ToolchainError:
        return None


def _container_limits(files: tuple[Path, ...]) -> list[int]:
    limits = []
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if (
            text.isdecimal()
        ):  # version 2 writes "max" for none, version 1 a number beyond all memory
            limits.append(int(text))
    return limits
