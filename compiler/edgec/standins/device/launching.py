"""Kernels that host code launches, checked and handed to what executes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgec.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.libraries.device import DeviceModule, KernelInfo
    from edgec.standins.guest.tensors import Tensor
    from edgec.standins.guest.wire import Launch

_HANDLE = "handle"
# An API that hands out objects, not addresses, can't be given an address inside of one.
_ADDRESSES_INSIDE = {"cuda", "rocm"}


class Program(Protocol):
    """What executes the kernels of one device module."""

    def launch(
        self,
        name: str,
        arguments: Sequence[int | float],
        extents: Sequence[int],
        sizes: Mapping[int, int],
    ) -> None:
        """Execute a kernel.

        Args:
            name: in the device module.
            arguments: in the kernel's order; a handle is an address.
            extents: in the order of the kernel's extent tags.
            sizes: of each handle by its argument's place: bytes that may be accessed from there.
        """


class Launcher:
    """Checks launches against the device module and the device's limits, and executes them.

    Args:
        module: the library's kernels.
        program: executes them.
        limits: of the device, by the names of target profiles.
    """

    def __init__(self, module: DeviceModule, program: Program, limits: Mapping[str, int]) -> None:
        self._module = module
        self._program = program
        self._limits = limits

    def launch(
        self, launch: Launch, tensors: Sequence[Tensor], workspace: Mapping[int, int]
    ) -> None:
        """Execute one launch.

        Args:
            launch: what the host code asked for.
            tensors: that the host function was given.
            workspace: device memory that it allocated: addresses and sizes in bytes.

        Raises:
            VerificationError: a device would refuse it, or the kernel did something wrong.
        """
        kernel = self._module.functions.get(launch.kernel)
        if kernel is None:
            raise _refused(launch, "there is no such kernel in the library")
        count = len(kernel.arg_types)
        if len(launch.values) != count + len(kernel.extent_tags):
            raise _refused(
                launch,
                f"{len(launch.values)} values are given for {count} arguments and"
                f" {len(kernel.extent_tags)} extents",
            )
        extents = [int(value) for value in launch.values[count:]]
        self._check_extents(launch, kernel, extents)
        reach = _reach(tensors, workspace)
        sizes = {
            index: self._bytes_from(launch, index, reach)
            for index, kind in enumerate(kernel.arg_types)
            if kind == _HANDLE
        }
        self._program.launch(launch.kernel, launch.values[:count], extents, sizes)

    def _check_extents(self, launch: Launch, kernel: KernelInfo, extents: Sequence[int]) -> None:
        threads = 1
        for tag, extent in zip(kernel.extent_tags, extents, strict=True):
            if extent < 1 and tag.startswith(("blockIdx", "threadIdx")):
                raise _refused(launch, f"the extent of {tag} is {extent}")
            threads *= extent if tag.startswith("threadIdx") else 1
        most = self._limits.get("max_threads", threads)
        if threads > most:
            raise _refused(launch, f"{threads} threads in a group are more than {most}")

    def _bytes_from(self, launch: Launch, index: int, reach: Mapping[int, int]) -> int:
        address = int(launch.values[index])
        if address in reach:
            return reach[address]
        if self._module.kind in _ADDRESSES_INSIDE:
            for start, size in reach.items():
                if start <= address < start + size:
                    return start + size - address
        raise _refused(
            launch,
            f"argument {index} is {address:#x}, which is the memory of no tensor of the function",
        )


def _reach(tensors: Sequence[Tensor], workspace: Mapping[int, int]) -> dict[int, int]:
    """Bytes that may be accessed from each address on: to the end of the last tensor there."""
    reach = dict(workspace)
    for tensor in tensors:
        if tensor.content is None:
            size = tensor.byte_offset + tensor.nbytes
            reach[tensor.address] = max(size, reach.get(tensor.address, 0))
    return reach


def _refused(launch: Launch, what: str) -> VerificationError:
    return VerificationError(what, where=f"launch of the kernel {launch.kernel}")
