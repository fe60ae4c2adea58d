"""As much of OpenCL's C interface as launching kernels on PoCL takes, through ctypes."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.cachefolder import TOOLS, cache_root
from edgec.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Callable

_INSTALL = "install it (Debian: apt-get install pocl-opencl-icd)"
_PLATFORM = "Portable Computing Language"
_CACHE_VARIABLE = "POCL_CACHE_DIR"

# Of CL/cl.h.
_PLATFORM_NAME, _DEVICE_TYPE_ALL, _DEVICE_EXTENSIONS = 0x0902, 0xFFFFFFFF, 0x1030
_BUILD_LOG, _READ_WRITE, _USE_HOST_PTR, _MAP_READ = 0x1183, 1 << 0, 1 << 3, 1 << 0
_NOT_FOUND = {-1, -1001}  # no device, no platform

Handle = ctypes.c_void_p


class OpenClError(Exception):
    """A function of OpenCL's failed.

    Attributes:
        function: its name.
        status: its (negative) result.
        log: what the compiler said, if it was the compiler.
    """

    def __init__(self, function: str, status: int, log: str = "") -> None:
        self.function = function
        self.status = status
        self.log = log
        super().__init__(f"{function} fails with status {status}")


@dataclass(frozen=True)
class Device:
    """PoCL's CPU.

    Attributes:
        handle: OpenCL's.
        extensions: names such as ``cl_khr_fp16``.
    """

    handle: Handle
    extensions: frozenset[str]


@functools.cache
def library() -> ctypes.CDLL:
    """OpenCL's loader.

    Raises:
        ToolchainError: it isn't installed.
    """
    # PoCL keeps what it compiles: with what else can be made again.
    os.environ.setdefault(_CACHE_VARIABLE, str(cache_root() / TOOLS / "pocl"))
    name = ctypes.util.find_library("OpenCL")
    if not name:
        raise ToolchainError("OpenCL's loader is missing", where="libOpenCL", remedy=_INSTALL)
    found = ctypes.CDLL(name)
    for creator in (
        "clCreateContext",
        "clCreateCommandQueue",
        "clCreateProgramWithSource",
        "clCreateKernel",
        "clCreateBuffer",
        "clEnqueueMapBuffer",
    ):
        getattr(found, creator).restype = Handle
    return found


@functools.cache
def find_device() -> Device:
    """PoCL's device among those of all installed platforms.

    Raises:
        ToolchainError: PoCL isn't installed.
    """
    for platform in _listed("clGetPlatformIDs"):
        if _text("clGetPlatformInfo", platform, _PLATFORM_NAME) != _PLATFORM:
            continue
        all_kinds = ctypes.c_uint64(_DEVICE_TYPE_ALL)
        for device in _listed("clGetDeviceIDs", platform, all_kinds):
            return Device(
                device, frozenset(_text("clGetDeviceInfo", device, _DEVICE_EXTENSIONS).split())
            )
    raise ToolchainError(
        "PoCL is missing, which executes OpenCL on this CPU", where="PoCL", remedy=_INSTALL
    )


def call(function: str, *arguments: Any) -> None:
    """Call a function that answers with a status.

    Raises:
        OpenClError: the status isn't 0.
    """
    status = getattr(library(), function)(*arguments)
    if status:
        raise OpenClError(function, status)


def create(function: str, *arguments: Any) -> Handle:
    """Call a function that answers with an object, and with a status in its last argument.

    Raises:
        OpenClError: the status isn't 0.
    """
    status = ctypes.c_int32()
    found = getattr(library(), function)(*arguments, ctypes.byref(status))
    if status.value:
        raise OpenClError(function, status.value)
    return Handle(found)


class Session:
    """A context and a queue on one device; ``close`` releases all that was made with it.

    Raises:
        OpenClError: the device refuses.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        devices = (Handle * 1)(device.handle)
        self._releases: list[Callable[[], None]] = []
        self._context = create("clCreateContext", None, 1, devices, None, None)
        self._release_later("clReleaseContext", self._context)
        self._queue = create(
            "clCreateCommandQueue", self._context, device.handle, ctypes.c_uint64(0)
        )
        self._release_later("clReleaseCommandQueue", self._queue)

    def compile(self, text: str, name: str) -> Handle:
        """The kernel ``name`` of a text in OpenCL C.

        Raises:
            OpenClError: the compiler rejects it; the error holds its log.
        """
        raw = text.encode()
        strings = (ctypes.c_char_p * 1)(raw)
        lengths = (ctypes.c_size_t * 1)(len(raw))
        program = create("clCreateProgramWithSource", self._context, 1, strings, lengths)
        self._release_later("clReleaseProgram", program)
        devices = (Handle * 1)(self._device.handle)
        try:
            call("clBuildProgram", program, 1, devices, b"", None, None)
        except OpenClError as error:
            log = _text("clGetProgramBuildInfo", program, self._device.handle, _BUILD_LOG)
            raise OpenClError(error.function, error.status, log) from error
        kernel = create("clCreateKernel", program, name.encode())
        self._release_later("clReleaseKernel", kernel)
        return kernel

    def wrap(self, address: int, size: int) -> Handle:
        """A buffer over memory of this process; it is released by :meth:`unwrap`.

        Raises:
            OpenClError: the device refuses.
        """
        flags = ctypes.c_uint64(_READ_WRITE | _USE_HOST_PTR)
        return create(
            "clCreateBuffer", self._context, flags, ctypes.c_size_t(size), ctypes.c_void_p(address)
        )

    def unwrap(self, buffer: Handle, size: int) -> None:
        """Bring a buffer's content to the memory it was made over, and release it.

        Raises:
            OpenClError: the device refuses.
        """
        where = create(
            *("clEnqueueMapBuffer", self._queue, buffer, ctypes.c_uint32(1)),
            *(ctypes.c_uint64(_MAP_READ), ctypes.c_size_t(0), ctypes.c_size_t(size)),
            *(0, None, None),
        )
        call("clEnqueueUnmapMemObject", self._queue, buffer, where, 0, None, None)
        call("clFinish", self._queue)
        call("clReleaseMemObject", buffer)

    def run(self, kernel: Handle, work_items: list[int], group: list[int]) -> None:
        """Run a kernel whose arguments are set, to its end.

        Raises:
            OpenClError: the device refuses.
        """
        sizes = (ctypes.c_size_t * 3)(*work_items), (ctypes.c_size_t * 3)(*group)
        call("clEnqueueNDRangeKernel", self._queue, kernel, 3, None, *sizes, 0, None, None)
        call("clFinish", self._queue)

    def close(self) -> None:
        """Release everything; the session can't be used any more."""
        while self._releases:
            self._releases.pop()()

    def _release_later(self, function: str, handle: Handle) -> None:
        self._releases.append(lambda: getattr(library(), function)(handle))


def _listed(function: str, *arguments: Any) -> list[Handle]:
    query, count = getattr(library(), function), ctypes.c_uint32()
    status = query(*arguments, 0, None, ctypes.byref(count))
    if status in _NOT_FOUND:
        return []
    if status:
        raise OpenClError(function, status)
    found = (Handle * count.value)()
    call(function, *arguments, count, found, None)
    return [Handle(value) for value in found]


def _text(function: str, *arguments: Any) -> str:
    size = ctypes.c_size_t()
    call(function, *arguments, ctypes.c_size_t(0), None, ctypes.byref(size))
    raw = ctypes.create_string_buffer(size.value)
    call(function, *arguments, size, raw, None)
    return raw.value.decode(errors="replace").strip()
