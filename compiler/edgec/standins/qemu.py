"""CPU libraries, their machine code in a process of its own: under QEMU, or directly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.errors import UsageError
from edgec.standins.device.assemble import Parts, assemble

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.libraries.open import LibraryFile
    from edgec.runtime.engine import Engine
    from edgec.runtime.forward import Capacity
    from edgec.standins import Requirements
    from edgec.standins.device.hosting import Observer

WEIGHTS_PER_SECOND = 5e7


def open_engine(
    library: Path,
    weights: Path,
    requirements: Requirements,
    *,
    capacity: Capacity | None = None,
    checked: bool = False,
    observer: Observer | None = None,
) -> Engine:
    """Load a library for CPUs; see :meth:`edgec.standins.StandIn.open_engine`.

    The emulated processor has the features that the library needs and, where QEMU can be told so,
    no others: an instruction beyond them is an error.
    """
    return assemble(
        library,
        weights,
        requirements,
        _parts,
        capacity=capacity,
        checked=checked,
        observer=observer,
    )


def _parts(library: LibraryFile) -> Parts:
    if library.device is not None:
        raise UsageError(
            f"the library has kernels for {library.device.kind}, which no CPU runs",
            where=str(library.path),
            remedy="choose the stand-in emulator",
        )
    return Parts("ext_dev", "cpu", shared=True)
