"""An engine whose library is taken apart: bytecode here, host functions in a guest."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.errors import UsageError
from edgec.ir.load import load_tvm
from edgec.libraries.open import open_library
from edgec.runtime.engine import Engine
from edgec.runtime.load import opening, try_out
from edgec.runtime.weights import MappedWeights
from edgec.standins.device.hosting import HostFunctions, open_machine
from edgec.standins.device.launching import Launcher
from edgec.standins.device.sidecar import DeviceMemory, stand_in_for
from edgec.standins.guest.image import loadable
from edgec.standins.guest.process import Guest, Hosting
from edgec.standins.guest.program import guest_program, is_native, runner
from edgec.target.processor import check_processor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgec.libraries.device import DeviceModule
    from edgec.libraries.open import LibraryFile
    from edgec.runtime.forward import Capacity
    from edgec.standins import Requirements
    from edgec.standins.device.hosting import HostCode, Memory, Observer
    from edgec.standins.device.launching import Program

# Parallel loops are divided as on a phone with four fast cores.
_TASKS = 4


@dataclass(frozen=True)
class Parts:
    """What a stand-in adds.

    Attributes:
        kind: of the TVM device on which the bytecode runs.
        seen_as: the kind of device that the library's code sees.
        shared: whether host code may touch the device's memory, as a CPU library's does.
        program: executes kernels; None for libraries without any.
        device: a real device; None for one that stands in, with memory in the arena.
        memory: of the real device.
        host_code: runs the host functions of a library that sees devices of a type, as DLPack
            numbers them; None for a guest, which runs machine code.
    """

    kind: str
    seen_as: str
    shared: bool = False
    program: Program | None = None
    device: Any = None
    memory: Memory | None = None
    host_code: Callable[[LibraryFile, int], HostCode] | None = None


def assemble(
    path: Path,
    weights: Path,
    requirements: Requirements,
    make_parts: Callable[[LibraryFile], Parts],
    *,
    capacity: Capacity | None = None,
    checked: bool = False,
    observer: Observer | None = None,
) -> Engine:
    """Load a library; see :meth:`edgec.standins.StandIn.open_engine`.

    ``make_parts`` says what the stand-in adds, and refuses libraries that are none for it.
    """
    library = open_library(path)
    parts = make_parts(library)
    machine, device = open_hosted(library, requirements, parts, checked=checked, observer=observer)
    with opening(path):
        engine = Engine(machine, device, path, MappedWeights(weights), capacity)
        if parts.device is not None:
            try_out(engine)
    return engine


def open_hosted(
    library: LibraryFile,
    requirements: Requirements,
    parts: Parts,
    *,
    checked: bool = False,
    observer: Observer | None = None,
) -> tuple[Any, Any]:
    """The virtual machine of a library, and the TVM device that it runs on.

    Raises:
        ToolchainError: something is missing on this machine.
        VerificationError: the library's host code can't be loaded.
    """
    load_tvm()
    import tvm  # noqa: PLC0415 - after load_tvm

    if is_native(library.machine):
        check_processor(
            library.path,
            requirements.architecture,
            requirements.cpu_features,
            machine=platform.machine(),
        )
    memory = DeviceMemory()
    device = parts.device or stand_in_for(parts.kind, poisoned=checked)
    seen_as = tvm.device(parts.seen_as).dlpack_device_type()
    code: HostCode
    if parts.host_code is not None:
        code = parts.host_code(library, seen_as)
    else:
        arena = (memory.descriptor, memory.start) if parts.shared else None
        code = Guest(
            guest_program(library.machine),
            runner(library.machine, requirements.cpu, requirements.cpu_features),
            Hosting(library.path, loadable(library), library.prefix, seen_as, _TASKS, arena),
        )
    launcher = None
    if parts.program is not None:
        launcher = Launcher(kernels_of(library), parts.program, requirements.limits)
    functions = HostFunctions(library, code, parts.memory or memory, launcher, observer)
    return open_machine(library, functions, device, seen_as, fresh=checked), device


def kernels_of(library: LibraryFile) -> DeviceModule:
    """The kernels of a library for GPUs.

    Raises:
        UsageError: it has none.
    """
    if library.device is None:
        raise UsageError(
            "the library has no kernels for a GPU",
            where=str(library.path),
            remedy="choose the stand-in qemu or native",
        )
    return library.device
