"""The C++ part: compiled once, loaded into this process."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.errors import ToolchainError
from edgec.ir.load import load_tvm
from edgec.standins import toolbox
from edgec.standins.guest.program import compile_tool, wheel_headers, wheel_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SOURCES = Path(__file__).parent / "src"
_PROTOCOL = Path(__file__).parent.parent / "guest" / "src"
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared")
# What TVM's runtime uses beside a device of some kind.
_COMPANIONS = {"cuda": ("cuda_host",), "rocm": ("rocm_host",)}


class DeviceMemory:
    """The arena: one per process, shared by all devices that stand in for others.

    Attributes:
        descriptor: of the file that holds it.
        start: its address, in this process and in guests.

    Raises:
        ToolchainError: this machine doesn't let a process reserve its range of addresses.
    """

    def __init__(self) -> None:
        _load()
        try:
            self.descriptor = int(_function("descriptor")())
        except RuntimeError as error:
            raise ToolchainError(
                f"memory for a device can't be reserved ({str(error).splitlines()[-1].strip()})",
                where="device memory",
                remedy="raise the limit of addresses per process (ulimit -v unlimited)",
            ) from error
        self.start = int(_function("start")())

    @property
    def used(self) -> int:
        """Bytes that are allocated."""
        return int(_function("used")())

    def allocate(self, size: int) -> int:
        """Address of new memory for ``size`` bytes, which hold NaNs."""
        return int(_function("allocate")(size))

    def free(self, address: int) -> None:
        """Give memory back."""
        _function("free")(address)


def stand_in_for(kind: str, *, poisoned: bool = False) -> Any:
    """A TVM device of some kind whose memory is the arena.

    Args:
        kind: TVM's name of it, such as ``"opencl"``.
        poisoned: whether its memory holds NaNs until it is written, so that results show whether
            something was read too early.

    Raises:
        ToolchainError: this process already uses a real device of that kind.
    """
    _load()
    import tvm  # noqa: PLC0415 - loaded by _load

    device = tvm.device(kind, int(poisoned))
    number = device.dlpack_device_type()
    ours = _function("register")(number)
    for companion in _COMPANIONS.get(kind, ()):
        ours = _function("register")(_HOST_KINDS[companion]) and ours
    if not ours:
        raise ToolchainError(
            f"a {kind} device of this machine is already in use by this process",
            where=kind,
            remedy="run this check in a process of its own",
        )
    return device


def host_functions(
    names: Sequence[str],
    prefix: str,
    handler: Callable[[int, bytes], bytes],
    arena_kind: int,
    device_type: int,
) -> Any:
    """A TVM module of functions that Python answers.

    Args:
        names: of the functions; their places in the list are their numbers.
        prefix: which bytecode may write before their names.
        handler: takes a function's number and the request that a guest reads; gives the function's
            value (16 bytes) and the contents of host tensors, each padded to 8 bytes.
        arena_kind: type of the device whose tensors are in the arena, as DLPack numbers them.
        device_type: as which the functions see those tensors.
    """
    _load()
    return _function("host_functions")(list(names), prefix, handler, arena_kind, device_type)


# DLPack's numbers of devices that TVM has no name for in Python.
_HOST_KINDS = {"cuda_host": 3, "rocm_host": 11}


def _function(name: str) -> Any:
    import tvm_ffi  # noqa: PLC0415 - loaded by _load

    return tvm_ffi.get_global_func(f"edgec.device.{name}")


@functools.cache
def _load() -> ctypes.CDLL:
    """Compile the C++ part if that wasn't done, and load it."""
    load_tvm()
    compiler = toolbox.cxx()
    headers = wheel_headers()

    def build(target: Path) -> None:
        command = [compiler, *_FLAGS, f"-I{_PROTOCOL}"]
        for folder in headers:
            # The runtime's libraries are loaded before this one and found by their names.
            command += ["-isystem", str(folder), f"-L{folder.parent / 'lib'}"]
        sources = map(str, sorted(_SOURCES.glob("*.cc")))
        compile_tool([*command, *sources, "-o", str(target), "-ltvm_runtime", "-ltvm_ffi"])

    parts: list[str | Path] = [_SOURCES, _PROTOCOL, toolbox.version(compiler), " ".join(_FLAGS)]
    parts += wheel_versions()
    return ctypes.CDLL(str(toolbox.compiled(parts, build, "sidecar.so")))
