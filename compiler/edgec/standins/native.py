"""The library runs on this machine itself, with AMX's instructions emulated where it lacks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.errors import UsageError
from edgec.runtime.load import load_engine
from edgec.standins import amx
from edgec.target import cpu_features

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgec.runtime.engine import Engine
    from edgec.runtime.forward import Capacity
    from edgec.standins import Requirements
    from edgec.standins.device.hosting import Observer

WEIGHTS_PER_SECOND = None


def open_engine(
    library: Path,
    weights: Path,
    requirements: Requirements,
    *,
    capacity: Capacity | None = None,
    checked: bool = False,
    observer: Observer | None = None,
) -> Engine:
    """Load a library on this machine; see :meth:`edgec.standins.StandIn.open_engine`."""
    if checked or observer is not None:
        raise UsageError(
            "nothing sees what a library does when this machine runs it itself",
            where="native",
            remedy="choose the stand-in qemu, which runs it in a process of its own",
        )
    return load_engine(
        library,
        weights,
        _to_check(requirements.cpu_features),
        requirements.architecture,
        capacity=capacity,
    )


def _to_check(needed: Sequence[str]) -> Sequence[str]:
    """The features that the processor itself must have: not those that are emulated from now on."""
    emulated = amx.emulated(set(needed) - cpu_features()) if needed else []
    if emulated:
        amx.install()
    return [feature for feature in needed if feature not in emulated]
