"""Can this machine's processor run a library? Asked before it dies of an illegal instruction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.errors import ToolchainError
from edgec.target import host

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_REMEDY = "run it on such a machine, or build it again for --target host"


def check_processor(
    library: Path,
    architecture: str,
    cpu_features: Iterable[str],
    *,
    machine: str,
    present: frozenset[str] | None = None,
) -> None:
    """Refuse a library that this processor can't execute.

    Args:
        library: for messages.
        architecture: of the processors that it is for, as in an LLVM triple: ``"x86_64"``.
        cpu_features: flags of ``/proc/cpuinfo`` that it needs.
        machine: this machine's architecture, as ``platform.machine()`` says it.
        present: the features of this processor; by default they are looked up if any is needed.

    Raises:
        ToolchainError: the architecture is another one, features are missing, or what the
            processor has can't be found out.
    """
    if host.architecture(architecture) != host.architecture(machine):
        raise ToolchainError(
            f"the library is for {architecture} processors and this one is {machine}",
            where=str(library),
            remedy=_REMEDY,
        )
    needed = set(cpu_features)
    if not needed:
        return
    missing = sorted(needed - (host.cpu_features() if present is None else present))
    if missing:
        raise ToolchainError(
            f"the library needs CPU features that this processor lacks: {', '.join(missing)}",
            where=str(library),
            remedy=_REMEDY,
        )
