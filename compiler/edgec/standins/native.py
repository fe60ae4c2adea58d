"""The library runs on this machine itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.errors import UsageError
from edgec.runtime.load import load_engine

if TYPE_CHECKING:
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
        requirements.cpu_features,
        requirements.architecture,
        capacity=capacity,
    )
