"""What this machine's CPU can do, and which target suits it."""

from __future__ import annotations

import functools
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgec.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgec.target.schema import Target

_CPUINFO = Path("/proc/cpuinfo")
_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
_NAME_ONE = "name a target instead of host, 'edgec targets' lists them"


def cpu_features() -> frozenset[str]:
    """The flags that every core of this machine's CPU has, in the kernel's spelling.

    Raises:
        ToolchainError: this system doesn't tell them.
    """
    return _features_in(_CPUINFO)


def missing_features(target: Target) -> list[str]:
    """The CPU features that a target needs of this machine and that it lacks, sorted.

    Nothing is missing where something else than this machine runs the library.

    Raises:
        ToolchainError: the target needs some and this system doesn't tell what it has.
    """
    if not target.cpu_features or target.standin != "native":
        return []
    return sorted(set(target.cpu_features) - cpu_features())


def best_for_this_machine(targets: Iterable[Target]) -> str:
    """The name of the target that uses most of this machine; see ``resolve_host``.

    Raises:
        ToolchainError: none fits, or the CPU's features can't be found out.
    """
    present = cpu_features()
    fitting = [
        target
        for target in targets
        if target.tvm.get("kind") == "llvm"
        and _is_for_this_system(target)
        and present >= set(target.cpu_features)
    ]
    if not fitting:
        raise ToolchainError(
            f"no target fits this machine's CPU ({architecture(platform.machine())})",
            where="host",
            remedy=_NAME_ONE,
        )
    return max(fitting, key=lambda target: (len(target.cpu_features), target.name)).name


@functools.cache
def _features_in(cpuinfo: Path) -> frozenset[str]:
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError as error:
        raise ToolchainError(
            f"the CPU's features are unknown, {sys.platform} has no {cpuinfo}",
            where="host",
            remedy=_NAME_ONE,
        ) from error
    cores = [
        frozenset(line.partition(":")[2].split())
        for line in text.splitlines()
        if line.partition(":")[0].strip() in ("flags", "Features")  # x86, Arm
    ]
    if not cores:
        raise ToolchainError(
            f"the CPU's features are unknown, {cpuinfo} lists none",
            where="host",
            remedy=_NAME_ONE,
        )
    return frozenset.intersection(*cores)


def _is_for_this_system(target: Target) -> bool:
    triple = str(target.tvm.get("mtriple", "")).split("-")
    architecture_fits = not triple[0] or architecture(triple[0]) == architecture(platform.machine())
    return architecture_fits and "android" not in triple[-1]


def architecture(name: str) -> str:
    """An architecture in the spelling of LLVM's triples: ``arm64`` is ``aarch64``."""
    return _ARCHITECTURES.get(name.lower(), name.lower())
