"""The device of this machine that a library runs on: its processor, or an NVIDIA GPU."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.errors import ToolchainError
from edgec.ir.load import load_tvm
from edgec.runtime.machine import cpu_model
from edgec.runtime.tvm_runtime import cpu, is_cpu, tvm_folder

if TYPE_CHECKING:
    from collections.abc import Callable

CUDA = "cuda"

_DRIVER = "libcuda.so.1"
# What TVM's module for CUDA is linked with, and the pip package that has it.
_RUNTIME = "libcudart.so.13"
_RUNTIME_FOLDER = "nvidia/cu13/lib"
_TVM_LIBRARY = "libtvm_runtime_cuda.so"


def open_device(kind: str | None, where: str) -> Any:
    """TVM's handle of the device for a library's kernels.

    Args:
        kind: of the kernels: None for host code alone, ``"cuda"``, ``"opencl"``, ....
        where: names what needs the device, for messages.

    Raises:
        ToolchainError: this machine has none, or something that it needs is missing.
    """
    if kind is None:
        return cpu()
    if kind != CUDA:
        raise ToolchainError(
            f"its kernels are for {kind}, which only the devices themselves run",
            where=where,
            remedy="check it with edgec verify, which runs it on a stand-in",
        )
    load_cuda(where)
    import tvm  # noqa: PLC0415 - after load_tvm

    return tvm.cuda(0)


def device_name(device: Any) -> str:
    """The model of a device, as its maker gives it."""
    return cpu_model() if is_cpu(device) else str(device.device_name)


def load_cuda(where: str, load: Callable[[str], Any] | None = None) -> None:
    """Have TVM use the NVIDIA driver. TVM says nothing when a library for that is missing.

    Args:
        where: names what needs the GPU, for messages.
        load: opens a shared library for the whole process; by default the system does.

    Raises:
        ToolchainError: driver, runtime or GPU are missing; the remedy says how to get them.
    """
    load_tvm()
    import tvm  # noqa: PLC0415 - after load_tvm

    load = load or _load_global
    if not tvm.runtime.enabled(CUDA):
        _need(load, [_DRIVER], where, "install the driver of the GPU")
        _need(
            load,
            [_RUNTIME, *_from_pip()],
            where,
            "run: pip install nvidia-cuda-runtime (version 13)",
        )
        _need(load, [str(tvm_folder() / _TVM_LIBRARY)], where, "install apache-tvm again")
    if not tvm.cuda(0).exist:
        raise ToolchainError(
            "this machine has no NVIDIA GPU that its driver shows",
            where=where,
            remedy="run nvidia-smi to see why, or check the library with edgec verify, which"
            " needs none",
        )


def _need(load: Callable[[str], Any], names: list[str], where: str, remedy: str) -> None:
    """Load the first library that is there."""
    reasons = []
    for name in names:
        reason = _try(load, name)
        if reason is None:
            return
        reasons.append(reason)
    raise ToolchainError(
        f"running on an NVIDIA GPU needs {Path(names[0]).name} ({reasons[-1]})",
        where=where,
        remedy=f"{remedy}; edgec verify runs the library on a stand-in, which needs no GPU",
    )


def _try(load: Callable[[str], Any], name: str) -> str | None:
    """Load a library; the reason if it can't be."""
    try:
        load(name)
    except OSError as error:
        return str(error)
    return None


def _load_global(name: str) -> Any:
    return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)


def _from_pip() -> list[str]:
    spec = importlib.util.find_spec("nvidia")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    return [str(Path(folder).parent / _RUNTIME_FOLDER / _RUNTIME) for folder in folders]
