"""Tensors, functions and machines of TVM's runtime, without TVM's Python package.

That package holds a compiler. Importing it takes most of a second and 40 MB (150 MB with the compiler's
library), where a process that runs a model needs a library of 2 MB and its foreign functions. Where the
package is already imported, its objects and these are the same.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.ir.load import without_torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

_LIBRARY = "libtvm_runtime.so"
# Of the allocators of TVM's virtual machine, the one that keeps what it gave out.
_POOLED = 2
_CPU = 1


def cpu() -> Any:
    """TVM's handle of the processor."""
    return _ffi().device("cpu", 0)


def is_cpu(device: Any) -> bool:
    """Whether a device of TVM is the processor."""
    return bool(device.dlpack_device_type() == _CPU)


def shape(sizes: Sequence[int]) -> Any:
    """Sizes as TVM's functions take them."""
    return _ffi().Shape([int(size) for size in sizes])


def empty(sizes: Sequence[int], dtype: str, device: Any) -> Any:
    """A tensor with any content."""
    allocate = function("runtime.TVMTensorAllocWithScope")
    return allocate(shape(sizes), _ffi().dtype(dtype), device, None)


def tensor(array: npt.NDArray[Any], device: Any) -> Any:
    """A copy of an array on a device."""
    array = np.ascontiguousarray(array)
    made = empty(array.shape, str(array.dtype), device)
    copy = function("runtime.TVMTensorCopyFromBytes")
    copy(made, array.ctypes.data_as(ctypes.c_void_p), array.nbytes)
    return made


def view(array: npt.NDArray[Any]) -> Any:
    """An array's memory as a tensor of the processor. The array must outlive it."""
    return _ffi().from_dlpack(array)


def on_device(source: Any, device: Any) -> Any:
    """A tensor, or a copy of it if it is on another device."""
    if source.device == device:
        return source
    made = empty(source.shape, str(source.dtype), device)
    function("runtime.TVMTensorCopyFromTo")(source, made)
    return made


def array_of(source: Any) -> npt.NDArray[Any]:
    """A copy of a tensor's numbers."""
    array = np.empty(tuple(int(size) for size in source.shape), str(source.dtype))
    copy = function("runtime.TVMTensorCopyToBytes")
    copy(source, array.ctypes.data_as(ctypes.c_void_p), array.nbytes)
    return array


def numbers_of(source: Any) -> npt.NDArray[Any]:
    """A tensor's numbers: its memory itself, which the array keeps, where the processor can read it."""
    return np.from_dlpack(source) if is_cpu(source.device) else array_of(source)


def is_tensor(value: Any) -> bool:
    """Whether a result is one tensor, and not several."""
    return isinstance(value, _ffi().Tensor)


@cache
def function(name: str) -> Any:
    """A function that TVM's runtime registers.

    Raises:
        ValueError: there is none of this name.
    """
    return _ffi().get_global_func(name)


class Machine:
    """TVM's virtual machine with a library's code.

    Args:
        library: a shared library for this machine.
        device: that its kernels are for.

    Raises:
        Exception: of any kind, if the file isn't a library for this machine.
    """

    def __init__(self, library: Path, device: Any) -> None:
        self.module = _ffi().load_module(str(library))["vm_load_executable"]()
        # Functions of sizes run on the processor, whatever the device.
        devices = [device] if is_cpu(device) else [device, cpu()]
        numbers = [(item.dlpack_device_type(), item.index, _POOLED) for item in devices]
        self.module["vm_initialization"](*(number for three in numbers for number in three))

    def __getitem__(self, name: str) -> Any:
        return self.module[name]

    def set_instrument(self, observer: Callable[..., None]) -> None:
        """Have every call told; see :meth:`edgec.runtime.engine.Engine.watch`."""
        self.module["set_instrument"](observer)


@cache
def _ffi() -> Any:
    """TVM's foreign-function package, with the runtime's functions registered."""
    with without_torch():
        import tvm_ffi  # noqa: PLC0415 - takes a tenth of a second

    if "tvm" not in sys.modules:
        ctypes.CDLL(str(tvm_folder() / _LIBRARY), mode=ctypes.RTLD_GLOBAL)
    return tvm_ffi


def tvm_folder() -> Path:
    """Where TVM's own shared libraries lie."""
    spec = importlib.util.find_spec("tvm")
    assert spec is not None, "edgec depends on it"
    assert spec.origin is not None, "a package with code"
    return Path(spec.origin).parent / "lib"
