"""GPU libraries on the NVIDIA GPU of this machine, through TVM's own runtime for CUDA."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

from edgec.errors import UsageError
from edgec.runtime.devices import load_cuda
from edgec.standins.device.assemble import Parts, assemble, kernels_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgec.libraries.device import DeviceModule
    from edgec.libraries.open import LibraryFile
    from edgec.runtime.engine import Engine
    from edgec.runtime.forward import Capacity
    from edgec.standins import Requirements
    from edgec.standins.device.hosting import Observer

_CUDA = "cuda"

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
    """Load a library for CUDA; see :meth:`edgec.standins.StandIn.open_engine`.

    Its host code may be for another processor than this machine's, as on Jetson modules.
    """
    if checked or observer is not None:
        raise UsageError(
            "the memory of a real GPU can't be looked at while kernels run",
            where="gpu",
            remedy="choose the stand-in emulator",
        )
    return assemble(library, weights, requirements, _parts, capacity=capacity)


def _parts(library: LibraryFile) -> Parts:
    module = kernels_of(library)
    if module.kind != _CUDA:
        raise UsageError(
            f"the library has kernels for {module.kind}, and only those for CUDA run on a GPU here",
            where=str(library.path),
            remedy="choose the stand-in emulator",
        )
    load_cuda("gpu")
    import tvm  # noqa: PLC0415 - after load_cuda

    return Parts(
        _CUDA,
        _CUDA,
        program=CudaProgram(module),
        device=tvm.cuda(0),
        memory=CudaMemory(tvm.cuda(0)),
    )


class CudaProgram:
    """Executes the kernels of a CUDA module on the GPU.

    Args:
        module: with machine code for it, or with text that TVM's runtime compiles.
    """

    def __init__(self, module: DeviceModule) -> None:
        import tvm  # noqa: PLC0415 - loaded by _parts

        self._kernels = tvm.get_global_func("ffi.Module.load_from_bytes.cuda")(module.to_bytes())
        self._types = {name: info.arg_types for name, info in module.functions.items()}

    def launch(
        self,
        name: str,
        arguments: Sequence[int | float],
        extents: Sequence[int],
        sizes: Mapping[int, int],  # noqa: ARG002 - nothing checks accesses here
    ) -> None:
        """See :meth:`edgec.standins.device.launching.Program.launch`."""
        values: list[Any] = [
            ctypes.c_void_p(int(value)) if kind == "handle" else value
            for value, kind in zip(arguments, self._types[name], strict=True)
        ]
        self._kernels[name](*values, *extents)


class CudaMemory:
    """Memory of the GPU.

    Args:
        device: TVM's.
    """

    def __init__(self, device: Any) -> None:
        self._device = device
        self._held: dict[int, Any] = {}

    def allocate(self, size: int) -> int:
        """Address of new memory for ``size`` bytes."""
        import tvm  # noqa: PLC0415 - loaded by _parts

        tensor = tvm.runtime.empty((size,), "uint8", self._device)
        address = int(tensor.data_ptr())
        self._held[address] = tensor
        return address

    def free(self, address: int) -> None:
        """Give it back once the kernels that were launched are done."""
        self._device.sync()
        del self._held[address]
