"""OpenCL libraries in float32: their kernels are compiled and executed by PoCL.

A second opinion beside the emulator: another compiler and another implementation of OpenCL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.errors import UsageError
from edgec.standins.device.assemble import Parts, assemble, kernels_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.libraries.open import LibraryFile
    from edgec.runtime.engine import Engine
    from edgec.runtime.forward import Capacity
    from edgec.standins import Requirements
    from edgec.standins.device.hosting import Observer

_OPENCL = "opencl"

WEIGHTS_PER_SECOND = 5e8


def open_engine(
    library: Path,
    weights: Path,
    requirements: Requirements,
    *,
    capacity: Capacity | None = None,
    checked: bool = False,
    observer: Observer | None = None,
) -> Engine:
    """Load a library for OpenCL; see :meth:`edgec.standins.StandIn.open_engine`.

    PoCL sees no accesses outside a buffer: ``checked`` only fills new memory with NaNs.
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
    from edgec.standins.pocl.program import Program  # noqa: PLC0415 - loads OpenCL

    module = kernels_of(library)
    if module.kind != _OPENCL:
        raise UsageError(
            f"the library has kernels for {module.kind}, and PoCL runs those for OpenCL",
            where=str(library.path),
            remedy="choose the stand-in emulator",
        )
    return Parts(_OPENCL, _OPENCL, program=Program(module))
