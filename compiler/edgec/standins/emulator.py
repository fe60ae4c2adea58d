"""GPU libraries: their host code runs as it ships, their kernels are executed by this CPU."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from edgec.emitters.cuda_record import MACHINE_CODE, read_text
from edgec.standins.device.assemble import Parts, assemble, kernels_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.libraries.device import DeviceModule
    from edgec.libraries.open import LibraryFile
    from edgec.runtime.engine import Engine
    from edgec.runtime.forward import Capacity
    from edgec.standins import Requirements
    from edgec.standins.device.hosting import Observer

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
    """Load a library for GPUs; see :meth:`edgec.standins.StandIn.open_engine`.

    The text of each kernel is compiled for this CPU. With ``checked``, accesses outside a tensor
    and races between work-items are errors.
    """
    return assemble(
        library,
        weights,
        requirements,
        partial(_parts, checked=checked),
        capacity=capacity,
        checked=checked,
        observer=observer,
    )


def _parts(library: LibraryFile, *, checked: bool) -> Parts:
    from edgec.standins.emulation.program import Program  # noqa: PLC0415 - only this needs clang

    module = _text(library, kernels_of(library))
    return Parts(module.kind, module.kind, program=Program(module, checked=checked))


def _text(library: LibraryFile, module: DeviceModule) -> DeviceModule:
    """The kernels as text: those in the library, or those that its machine code was made from.

    Raises:
        VerificationError: the file with the text is missing or isn't the machine code's.
    """
    if module.format not in MACHINE_CODE:
        return module
    text, record = read_text(library.path)
    record.check(text, module, str(library.path))
    return text
