"""WebGPU libraries, run whole: virtual machine, KV cache and kernels inside the shipped module.

Node.js loads the module with the JavaScript runtime that WebLLM is made with, and Dawn, the
implementation of WebGPU in Chromium, executes the kernels on a Vulkan driver. To read: ``engine``
is what checks call, ``worker`` talks to Node.js (``library.mjs`` and ``worker.mjs``), ``adapter``
finds the driver.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from edgec.errors import UsageError
from edgec.libraries.open import open_library
from edgec.standins.dawn.engine import DawnEngine
from edgec.standins.dawn.worker import Worker

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.runtime.engine import Engine
    from edgec.runtime.forward import Capacity
    from edgec.standins import Requirements
    from edgec.standins.device.hosting import Observer

_WEBGPU = "webgpu"

# Kernels run as compiled code, on a CPU or a GPU: texts as long as a recipe's take seconds to minutes.
WEIGHTS_PER_SECOND = None


def open_engine(
    library: Path,
    weights: Path,
    requirements: Requirements,  # noqa: ARG001 - the browser's limits are asked of the adapter
    *,
    capacity: Capacity | None = None,
    checked: bool = False,
    observer: Observer | None = None,
) -> Engine:
    """Load a library for WebGPU; see :meth:`edgec.standins.StandIn.open_engine`."""
    if checked or observer is not None:
        raise UsageError(
            "nothing sees what a library does inside its own WebAssembly module",
            where="dawn",
            remedy="choose the stand-in wgpu",
        )
    module = open_library(library).device
    if module is None or module.kind != _WEBGPU:
        kernels = "no kernels" if module is None else f"kernels for {module.kind}"
        raise UsageError(
            f"the library has {kernels}, and only libraries for WebGPU run in a browser",
            where=str(library),
            remedy="choose the stand-in of its target's profile",
        )
    engine = DawnEngine(Worker(library), library, weights, capacity)
    # It has every method of an engine; its objects are in another process.
    return cast("Engine", engine)
