"""WebGPU libraries: host code in the shipped WebAssembly, kernels on a device with WebGPU.

Bytecode runs in this process. Host functions run in the library itself, which wasmtime executes;
its runtime for browsers finds them there as it does in a browser. Kernels are executed by
wgpu-native, by default on Mesa's lavapipe.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from edgec.errors import ToolchainError, UsageError
from edgec.standins.device.assemble import Parts, assemble, kernels_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.libraries.open import LibraryFile
    from edgec.runtime.engine import Engine
    from edgec.runtime.forward import Capacity
    from edgec.standins import Requirements
    from edgec.standins.device.hosting import Observer

_WEBGPU = "webgpu"

WEIGHTS_PER_SECOND = 2e8


def open_engine(
    library: Path,
    weights: Path,
    requirements: Requirements,
    *,
    capacity: Capacity | None = None,
    checked: bool = False,
    observer: Observer | None = None,
) -> Engine:
    """Load a library for browsers; see :meth:`edgec.standins.StandIn.open_engine`.

    WebGPU keeps every access inside its buffer, so that none outside is seen: ``checked`` only
    fills new memory with NaNs.
    """
    return assemble(
        library,
        weights,
        requirements,
        partial(_parts, requirements=requirements),
        capacity=capacity,
        checked=checked,
        observer=observer,
    )


def _parts(library: LibraryFile, requirements: Requirements) -> Parts:
    module = kernels_of(library)
    if module.kind != _WEBGPU or library.form != "wasm":
        raise UsageError(
            f"the library has kernels for {module.kind} in a file of the form {library.form}, and"
            " this stand-in runs WebAssembly modules for browsers",
            where=str(library.path),
            remedy="choose the stand-in emulator",
        )
    try:
        from edgec.standins.wgpu.host import WasmHost  # noqa: PLC0415 - loads wasmtime
        from edgec.standins.wgpu.program import Program  # noqa: PLC0415 - loads wgpu
    except ImportError as error:
        raise ToolchainError(
            f"the Python package {error.name} is missing, which runs libraries for browsers",
            where=str(error.name),
            remedy="pip install wgpu wasmtime",
        ) from error
    program = Program(module, requirements.limits)
    return Parts(_WEBGPU, _WEBGPU, program=program, host_code=WasmHost)
