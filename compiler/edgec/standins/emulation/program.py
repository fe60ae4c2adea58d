"""The kernels of a device module, executed on this CPU."""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import os
import shutil
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgec.errors import VerificationError
from edgec.standins.emulation.cxx import CHECKED, CODE, CXX
from edgec.standins.emulation.dialect import find_dialect
from edgec.standins.emulation.engine import Buffer, Dim, Fault, Launch, engine
from edgec.standins.emulation.extents import Extents, slots
from edgec.standins.emulation.report import to_error
from edgec.standins.emulation.signature import index_handles, read_only_handles
from edgec.standins.toolbox import clang, compiled, version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from typing_extensions import Self

    from edgec.libraries.device import DeviceModule, KernelInfo

# A launch that lasts longer runs on several threads the next time.
_LONG = 0.002
_MOST_THREADS = 8


class Program:
    """Kernels of one module, compiled in the background and launched one at a time.

    Args:
        device: the module, with kernels as text.
        checked: check each access for bounds and races, and run work-items from the last to the
            first. Some hundred times slower, so that of launches which differ in nothing but the
            numbers in their buffers, as those of a model's layers, only the first is checked.
        seconds: of processor time that one launch may take.

    Raises:
        UsageError: there is no emulation of the module's kind.
        ToolchainError: there is no compiler.
    """

    def __init__(
        self, device: DeviceModule, *, checked: bool = False, seconds: float = 300.0
    ) -> None:
        self.device = device
        self.checked = checked
        self.seconds = seconds
        self._dialect = find_dialect(device.kind)
        self._engine = engine()
        self._fine: set[tuple[object, ...]] = set()
        self._unchecked: Program | None = None
        threads = min(len(os.sched_getaffinity(0)), _MOST_THREADS)
        self._threads = 1 if checked else threads
        self._key = [
            *(version(clang("c++")), *CODE, *CXX, *(CHECKED if checked else ())),
            *self._dialect.sources(),
        ]
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="kernels")
        self._kernels: dict[str, Future[_Kernel]] = {
            name: self._pool.submit(self._load, name) for name in device.functions
        }

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
            sizes: for the position of each buffer, the bytes that may be accessed from its
                address on. Only the checked mode needs them; otherwise they help messages.

        Raises:
            KernelFault: the kernel did something wrong.
            BuildError: the compiler rejects its text.
        """
        if name not in self._kernels:
            raise VerificationError("the device module has no such kernel", where=f"kernel {name}")
        kernel = self._kernels[name].result()
        like = kernel.places(name, arguments, extents, sizes)
        if like in self._fine:
            self._without_checks().launch(name, arguments, extents, sizes)
            return
        extent = Extents.of(kernel.info, extents)
        buffers = [
            Buffer(int(arguments[index]), sizes[index], index, index in kernel.read_only)
            for index in kernel.handles
            if self.checked and arguments[index]
        ]
        launch = Launch(
            copies=(ctypes.c_void_p * len(kernel.copies))(*kernel.copies),
            copy_count=len(kernel.copies),
            argument_count=len(arguments),
            arguments=slots(kernel.info, arguments),
            grid=Dim(*extent.grid),
            group=Dim(*extent.group),
            subgroup_width=self._dialect.SUBGROUP_WIDTH,
            dynamic_shared=extent.dynamic_shared,
            reverse=self.checked,
            checked=self.checked,
            buffers=(Buffer * len(buffers))(*buffers),
            buffer_count=len(buffers),
            seconds=self.seconds,
        )
        fault = Fault()
        start = time.perf_counter()
        status = self._engine.emu_launch(launch, fault)
        if status > 0:
            raise to_error(name, fault, arguments, sizes, self.seconds)
        if status < 0:
            raise MemoryError(f"no memory for copies of the buffers of kernel {name}")
        if time.perf_counter() - start > _LONG:
            kernel.grow(self._threads)
        if self.checked and like is not None:
            self._fine.add(like)

    def _without_checks(self) -> Program:
        if self._unchecked is None:
            self._unchecked = Program(self.device, seconds=self.seconds)
        return self._unchecked

    def compile_all(self) -> None:
        """Wait until all kernels are compiled.

        Raises:
            BuildError: the compiler rejects one.
        """
        for kernel in self._kernels.values():
            kernel.result()

    def close(self) -> None:
        """Forget the kernels; nothing may be launched any more."""
        self._pool.shutdown(cancel_futures=True)
        for kernel in self._kernels.values():
            if not kernel.cancelled() and not kernel.exception():
                kernel.result().close()
        self._kernels = {}
        if self._unchecked is not None:
            self._unchecked.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load(self, name: str) -> _Kernel:
        text = self._dialect.translate(self.device, name)

        def build(target: Path) -> None:
            self._dialect.build(text, name, target, checked=self.checked)

        path = compiled([text, *self._key], build, "kernel.so")
        info = self.device.functions[name]
        read_only = read_only_handles(text, info.name, info.arg_types)
        indexed = bool(index_handles(text, info.name, info.arg_types))
        kernel = _Kernel(info, path, read_only, indexed=indexed)
        kernel.grow(1)
        return kernel


@dataclass
class _Kernel:
    info: KernelInfo
    path: Path
    read_only: frozenset[int]
    indexed: bool
    copies: list[int] = field(default_factory=list)
    _libraries: list[ctypes.CDLL] = field(default_factory=list)

    @property
    def handles(self) -> list[int]:
        return [i for i, kind in enumerate(self.info.arg_types) if kind == "handle"]

    def places(
        self,
        name: str,
        arguments: Sequence[int | float],
        extents: Sequence[int],
        sizes: Mapping[int, int],
    ) -> tuple[object, ...] | None:
        """What decides where a launch reads and writes; None if numbers in its buffers do too."""
        if self.indexed:
            return None
        scalars = (v for i, v in enumerate(arguments) if i not in sizes)
        return (name, *scalars, *extents, *sorted(sizes.items()))

    def grow(self, count: int) -> None:
        """Load further copies: each thread has the kernel's static variables for itself."""
        if not self.copies:
            self._add(ctypes.CDLL(str(self.path)))
        # A file is loaded once; another copy has to be another file, under a new name. Without
        # room for it there are fewer threads.
        with contextlib.suppress(OSError):
            while len(self.copies) < count:
                with tempfile.NamedTemporaryFile(dir=self.path.parent) as other:
                    shutil.copyfile(self.path, other.name)
                    self._add(ctypes.CDLL(other.name))

    def _add(self, library: ctypes.CDLL) -> None:
        self._libraries.append(library)
        self.copies.append(ctypes.addressof(ctypes.c_char.in_dll(library, "emu_kernel")))

    def close(self) -> None:
        for library in self._libraries:
            _ctypes.dlclose(library._handle)  # noqa: SLF001 - ctypes has no public way
        self._libraries.clear()
        self.copies.clear()
