"""Small OpenCL modules as TVM writes them, from hand-written kernels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgec.libraries.device import DeviceModule, KernelInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = npt.NDArray[np.generic]
TAGS = ("blockIdx.x", "threadIdx.x")
HEAD = "#ifdef cl_khr_fp16\n#pragma OPENCL EXTENSION cl_khr_fp16 : enable\n#endif\n"


def module(
    name: str, text: str, arg_types: Sequence[str], tags: Sequence[str] = TAGS
) -> DeviceModule:
    """A module with one kernel."""
    info = KernelInfo(name, tuple(arg_types), tuple(tags))
    code = f"// Function: {name}\n{HEAD}{text}"
    return DeviceModule("opencl", "cl", {name: info}, {"": code.encode()})


def call(
    program: object, name: str, arguments: Sequence[Array | int | float], extents: Sequence[int]
) -> None:
    """Launch a kernel on arrays."""
    sizes = {i: a.nbytes for i, a in enumerate(arguments) if isinstance(a, np.ndarray)}
    plain = [a.ctypes.data if isinstance(a, np.ndarray) else a for a in arguments]
    program.launch(name, plain, extents, sizes)  # type: ignore[attr-defined]
