"""A GPU that isn't there: TVM's own runtime drives it, the emulator executes its kernels.

The driver and the runtime are C (``driver.c``, ``runtime.c``); what the driver is asked about
modules and launches is answered here.
"""

from __future__ import annotations

import collections
import ctypes
import sys
import traceback
from typing import TYPE_CHECKING, Any

from edgec.emitters.cuda_record import read_text
from edgec.libraries.open import open_library
from edgec.standins.emulation.extents import Extents
from edgec.standins.emulation.program import Program

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgec.libraries.device import KernelInfo

DRIVER, RUNTIME = "libcuda.so.1", "libcudart.so.13"

# The driver's numbers of errors.
_INVALID_VALUE, _NO_BINARY_FOR_GPU, _NOT_FOUND, _LAUNCH_FAILED = 1, 209, 500, 719
_ARCHITECTURE = "sm_80"
_SHARED_BYTES = 49152
_MODULE = 1
_VALUES: dict[str, Any] = {
    "handle": ctypes.c_uint64,
    "int32": ctypes.c_int32,
    "int64": ctypes.c_int64,
    "float32": ctypes.c_float,
}
_HOST_TO_DEVICE, _DEVICE_TO_HOST = 1, 2


class _Config(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint32 * 3),
        ("group", ctypes.c_uint32 * 3),
        ("shared_bytes", ctypes.c_uint32),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("attribute_count", ctypes.c_uint32),
    )


_Handle = ctypes.POINTER(ctypes.c_void_p)
_Load = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, _Handle)
_Find = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, _Handle)
_Launch = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Config), ctypes.c_void_p, _Handle)


class _Answers(ctypes.Structure):
    _fields_ = (("load", _Load), ("find", _Find), ("launch", _Launch))


class Refused(Exception):  # noqa: N818 - what a driver does
    """The driver says no.

    Args:
        code: the driver's number of the error.
        why: for people.
    """

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code


class FakeGpu:
    """Has the driver and the runtime in this process answer for a GPU that runs one library.

    Args:
        folder: of the driver and the runtime.
        library: whose kernels are executed, with their text beside it.
        broken: ``"halves"`` has the GPU take every number with a fraction for half of it,
            ``"old"`` makes it one that no code in the library is for.
    """

    def __init__(self, folder: Path, library: Path, *, broken: str = "") -> None:
        assert "tvm" not in sys.modules, "it has loaded a real driver if there is one"
        # By their names they are found from now on, whatever else this machine has.
        driver = ctypes.CDLL(str(folder / DRIVER), mode=ctypes.RTLD_GLOBAL)
        self._runtime = ctypes.CDLL(str(folder / RUNTIME), mode=ctypes.RTLD_GLOBAL)
        self._runtime.fake_cuda_copied.restype = ctypes.c_uint64
        module = open_library(library).device
        assert module is not None, library
        self._code = module.code[""]
        text, record = read_text(library)
        record.check(text, module, str(library))
        self._facts = {k.name: k for k in record.kernels if k.architecture == _ARCHITECTURE}
        self._infos = list(text.functions.values())
        self._program = Program(text)
        self._halves, self._old = broken == "halves", broken == "old"
        self.launches: collections.Counter[str] = collections.Counter()
        self._answers = _Answers(
            _Load(_answer(self._load)), _Find(_answer(self._find)), _Launch(_answer(self._launch))
        )
        driver.fake_cuda_install(ctypes.byref(self._answers))

    def report(self) -> dict[str, Any]:
        """What was asked of the GPU so far: plain data."""
        copied = self._runtime.fake_cuda_copied
        return {
            "launches": dict(self.launches),
            "bytes_to_device": copied(_HOST_TO_DEVICE),
            "bytes_to_host": copied(_DEVICE_TO_HOST),
        }

    def _load(self, code: int, module: Any) -> None:
        if self._old:
            raise Refused(_NO_BINARY_FOR_GPU, "there is no code for this GPU")
        if not self._facts or ctypes.string_at(code, len(self._code)) != self._code:
            raise Refused(_NO_BINARY_FOR_GPU, "this isn't the library's machine code")
        module[0] = _MODULE

    def _find(self, module: int, name: bytes, function: Any) -> None:
        if module != _MODULE or name.decode() not in self._facts:
            raise Refused(_NOT_FOUND, f"the machine code has no kernel {name!r}")
        names = [info.name for info in self._infos]
        function[0] = 1 + names.index(name.decode())

    def _launch(self, config: Any, function: int, values: Any) -> None:
        info = self._infos[function - 1]
        grid, group = tuple(config[0].grid), tuple(config[0].group)
        shared = config[0].shared_bytes
        extents = _extents(info, grid, group, shared)
        if Extents.of(info, extents) != Extents(grid, group, shared):
            raise Refused(_INVALID_VALUE, f"{info.name} is launched with {grid} {group} {shared}")
        facts = self._facts[info.name]
        if facts.shared_bytes + shared > _SHARED_BYTES:
            raise Refused(_INVALID_VALUE, f"{info.name} asks for {shared} bytes of shared memory")
        if group[0] * group[1] * group[2] > (facts.max_threads or 1024):
            raise Refused(_INVALID_VALUE, f"{info.name} is launched with blocks of {group}")
        arguments = [
            _VALUES[kind].from_address(values[index]).value
            for index, kind in enumerate(info.arg_types)
        ]
        if self._halves:
            arguments = [v / 2 if isinstance(v, float) else v for v in arguments]
        self._runtime.fake_cuda_open()
        try:
            self._program.launch(info.name, arguments, extents, {})
        finally:
            self._runtime.fake_cuda_close()
        self.launches[info.name] += 1


def _extents(
    info: KernelInfo, grid: tuple[int, ...], group: tuple[int, ...], shared: int
) -> list[int]:
    """The numbers of a launch in the order of a kernel's tags."""
    by_tag = {"tirx.use_dyn_shared_memory": shared}
    for axis, blocks, threads in zip("xyz", grid, group, strict=True):
        by_tag |= {f"blockIdx.{axis}": blocks, f"threadIdx.{axis}": threads}
    return [by_tag[tag] for tag in info.launch_tags]


def _answer(handler: Callable[..., None]) -> Callable[..., int]:
    """What C calls: an error becomes its number, and is shown."""

    def answer(*arguments: Any) -> int:
        try:
            handler(*arguments)
        except Refused as error:
            print(f"fake GPU: {error}", file=sys.stderr)
            return error.code
        except Exception:  # noqa: BLE001 - C can't take one
            traceback.print_exc()
            return _LAUNCH_FAILED
        return 0

    return answer
