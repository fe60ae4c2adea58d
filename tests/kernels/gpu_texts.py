"""Modules of hand-written Metal and CUDA kernels, as TVM writes them, and runs of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from edgec.libraries.device import DeviceModule, KernelInfo
from edgec.standins.emulation.program import Program
from edgec.standins.faults import KernelFault

if TYPE_CHECKING:
    from collections.abc import Sequence

Array = npt.NDArray[np.generic]
Argument = Array | int | float

CUDA_HEAD = "#include <cstdint>\n#include <cuda.h>\n#include <cuda_fp16.h>\n#include <mma.h>\n"
METAL_HEAD = "#include <metal_stdlib>\nusing namespace metal;\n"


def cuda(
    parameters: str,
    body: str,
    arguments: Sequence[Argument],
    extents: dict[str, int],
    **options: Any,
) -> None:
    """Run ``k(parameters) { body }``; blocks may have up to 1024 threads."""
    text = f'extern "C" __global__ void __launch_bounds__(1024) k({parameters}) {{\n{body}\n}}\n'
    run(cuda_module(text, arguments, extents), arguments, extents, **options)


def cuda_module(text: str, arguments: Sequence[Argument], extents: dict[str, int]) -> DeviceModule:
    return _module("cuda", {"": (CUDA_HEAD + text).encode()}, arguments, extents)


def metal(
    parameters: str,
    body: str,
    arguments: Sequence[Argument],
    extents: dict[str, int],
    **options: Any,
) -> None:
    """Run a kernel with ``blockIdx`` and ``threadIdx`` of three dimensions.

    Args:
        parameters: pointers, in Metal's words: ``device half* x, device float* y``.
    """
    run(metal_module(parameters, body, arguments, extents), arguments, extents, **options)


def metal_module(
    parameters: str, body: str, arguments: Sequence[Argument], extents: dict[str, int]
) -> DeviceModule:
    pointers = [f"{text.strip()} [[ buffer({i}) ]]" for i, text in enumerate(parameters.split(","))]
    structure = ""
    scalars = len(arguments) - len(pointers)
    if scalars:
        fields = "".join(f" long s{i};" for i in range(scalars))
        structure = f"struct k_args_t {{{fields} }};\n"
        pointers.append(f"constant k_args_t& arg [[ buffer({len(pointers)}) ]]")
    pointers += [
        "uint3 blockIdx [[threadgroup_position_in_grid]]",
        "uint3 threadIdx [[thread_position_in_threadgroup]]",
    ]
    text = f"{METAL_HEAD}{structure}kernel void k({', '.join(pointers)}) {{\n{body}\n}}\n"
    return _module("metal", {"k": text.encode()}, arguments, extents)


def run(
    module: DeviceModule,
    arguments: Sequence[Argument],
    extents: dict[str, int],
    *,
    checked: bool = False,
) -> None:
    """Launch the kernel ``k``."""
    plain = [item.ctypes.data if isinstance(item, np.ndarray) else item for item in arguments]
    sizes = {i: item.nbytes for i, item in enumerate(arguments) if isinstance(item, np.ndarray)}
    with Program(module, checked=checked, seconds=30.0) as program:
        program.launch("k", plain, list(extents.values()), sizes)


def fault(module: DeviceModule, arguments: Sequence[Argument], extents: dict[str, int]) -> str:
    """What the checked mode finds."""
    with pytest.raises(KernelFault) as caught:
        run(module, arguments, extents, checked=True)
    return str(caught.value)


def threads(x: int, y: int = 1, *, blocks: int = 1, dynamic: int = 0) -> dict[str, int]:
    """The extents of a launch, by tag."""
    extents = {"blockIdx.x": blocks, "threadIdx.x": x, "threadIdx.y": y}
    return {**extents, "tirx.use_dyn_shared_memory": dynamic} if dynamic else extents


def without(text: str, line: str, number: int) -> str:
    """The text without the n-th line that begins with ``line``."""
    found = list(re.finditer(rf"^[ \t]*{re.escape(line)}.*\n", text, re.MULTILINE))
    assert number < len(found), (line, len(found))
    return text[: found[number].start()] + text[found[number].end() :]


def _module(
    kind: str, code: dict[str, bytes], arguments: Sequence[Argument], extents: dict[str, int]
) -> DeviceModule:
    types = tuple(_type(item) for item in arguments)
    return DeviceModule(kind, kind, {"k": KernelInfo("k", types, tuple(extents))}, code)


def _type(argument: Argument) -> str:
    if isinstance(argument, np.ndarray):
        return "handle"
    return "float32" if isinstance(argument, float) else "int64"
