"""The kernels of an OpenCL module, executed by PoCL."""

from __future__ import annotations

import ctypes
import re
from typing import TYPE_CHECKING

from edgec.errors import BuildError, UsageError, VerificationError
from edgec.standins.emulation.extents import Extents, slots
from edgec.standins.emulation.opencl import piece
from edgec.standins.faults import KernelFault
from edgec.standins.pocl.opencl import Handle, OpenClError, Session, call, find_device

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

    from edgec.libraries.device import DeviceModule

_HALF = "cl_khr_fp16"
_SLOT = 8  # bytes
_BITS = re.compile(r"(\d+)$")


class Program:
    """Kernels of one module; each is compiled when it is launched for the first time.

    Args:
        device: an OpenCL module.

    Raises:
        UsageError: the module needs what PoCL lacks.
        ToolchainError: PoCL isn't installed.
    """

    def __init__(self, device: DeviceModule) -> None:
        found = find_device()
        text = device.code[""].decode()
        if _HALF not in found.extensions and re.search(r"\bhalf\d*\b", text):
            raise UsageError(
                "the kernels compute in float16, and PoCL has no float16 on CPUs"
                f" (its device lacks {_HALF})",
                where="PoCL",
                remedy="use the stand-in emulator, or a recipe whose activations are float32",
            )
        self.device = device
        self._session = Session(found)
        self._kernels: dict[str, Handle] = {}

    def launch(
        self,
        name: str,
        arguments: Sequence[int | float],
        extents: Sequence[int],
        sizes: Mapping[int, int],
    ) -> None:
        """Run one kernel to its end.

        Args:
            name: of the kernel in the module.
            arguments: in the kernel's order: a buffer is an address, scalars are numbers.
            extents: one for each of the kernel's launch tags.
            sizes: bytes of each buffer, by its argument's position.

        Raises:
            KernelFault: PoCL refuses the launch.
            BuildError: PoCL's compiler rejects the kernel.
        """
        kernel = self._kernel(name)
        info = self.device.functions[name]
        extent = Extents.of(info, extents)
        raw = slots(info, arguments)
        buffers: list[tuple[Handle, int]] = []
        try:
            for index, kind in enumerate(info.arg_types):
                if kind != "handle":
                    start = index * _SLOT
                    value = raw[start : start + _bytes(kind)]
                    call("clSetKernelArg", kernel, index, ctypes.c_size_t(len(value)), value)
                    continue
                buffer = Handle(None)
                if address := int(arguments[index]):
                    buffer = self._session.wrap(address, sizes[index])
                    buffers.append((buffer, sizes[index]))
                size = ctypes.c_size_t(ctypes.sizeof(Handle))
                call("clSetKernelArg", kernel, index, size, ctypes.byref(buffer))
            work_items = [a * b for a, b in zip(extent.grid, extent.group, strict=True)]
            self._session.run(kernel, work_items, list(extent.group))
            for buffer, size_ in buffers:
                self._session.unwrap(buffer, size_)
        except OpenClError as error:
            raise KernelFault(name, f"PoCL refuses the launch: {error}") from error

    def close(self) -> None:
        """Forget the kernels; nothing may be launched any more."""
        self._kernels = {}
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _kernel(self, name: str) -> Handle:
        if name not in self.device.functions:
            raise VerificationError("the device module has no such kernel", where=f"kernel {name}")
        if name not in self._kernels:
            text = piece(self.device.code[""].decode(), name)
            try:
                self._kernels[name] = self._session.compile(text, self.device.functions[name].name)
            except OpenClError as error:
                said = next((line for line in error.log.splitlines() if "error" in line), "")
                raise BuildError(
                    f"PoCL's compiler rejects it: {said or error}", where=f"kernel {name}"
                ) from error
        return self._kernels[name]


def _bytes(kind: str) -> int:
    bits = _BITS.search(kind)
    return int(bits[1]) // 8 if bits else 1
