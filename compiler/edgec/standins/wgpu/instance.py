"""A running WebAssembly module, with what browsers give it in the place of a system."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import wasmtime

from edgec.errors import VerificationError
from edgec.standins import toolbox

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgec.libraries.open import LibraryFile

_SYSTEM, _ENVIRONMENT = "wasi_snapshot_preview1", "env"
_SUCCESS, _BAD_FILE, _NO_SEEK = 0, 8, 70  # of WASI
_WORD = 4
_LARGEST_OUTPUT, _MESSAGE_LINES = 1 << 16, 4


class Stopped(Exception):  # noqa: N818 - how it ends, not what went wrong
    """A module ended where it should have gone on; the text says why."""


class Instance:
    """A module that has been initialized. Not thread-safe.

    Args:
        library: the module.
        call: is called by the module with the number of a function that it was given, and with
            the addresses of the arguments, their count, and the address for the result.
        drop: is called with the number when the function isn't needed any more.

    Raises:
        VerificationError: the module asks for what browsers don't have, or fails to begin.
    """

    def __init__(
        self,
        library: LibraryFile,
        call: Callable[[int, int, int, int], None],
        drop: Callable[[int], None],
    ) -> None:
        self._where = str(library.path)
        self._call, self._drop = call, drop
        self._output = bytearray()
        engine = wasmtime.Engine()
        module = _compiled(engine, library.objects[0].data, self._where)
        store = wasmtime.Store(engine)
        # While the module calls this process, only its caller may touch the store.
        self._store: Any = store
        linker = wasmtime.Linker(engine)
        offered = self._offered()
        for item in module.imports:
            function = offered.get((item.module, item.name or ""))
            if function is None or not isinstance(item.type, wasmtime.FuncType):
                raise VerificationError(
                    f"the module asks for {item.module}.{item.name}, which browsers don't have",
                    where=self._where,
                    remedy="this is a fault of the web runtime: report it with its toolchain",
                )
            linker.define_func(
                item.module,
                item.name or "",
                item.type,
                self._entered(function, answers=bool(item.type.results)),
                access_caller=True,
            )
        self._exports = linker.instantiate(store, module).exports(store)
        memory = self._exports.get("memory")
        if not isinstance(memory, wasmtime.Memory):
            raise VerificationError("the module exports no memory", where=self._where)
        self._memory = memory
        self.call("_initialize")

    def call(self, name: str, *arguments: int) -> int:
        """Call an exported function of integers; 0 if it has no result.

        Raises:
            Stopped: it doesn't come back.
            VerificationError: there is no such function.
        """
        function = self._exports.get(name)
        if not isinstance(function, wasmtime.Func):
            raise VerificationError(f"the module exports no function {name}", where=self._where)
        try:
            return int(function(self._store, *arguments) or 0)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise Stopped(self._said() or str(error).strip().splitlines()[-1].strip()) from error

    def forget_output(self) -> None:
        """What it printed so far explains nothing that comes."""
        self._output.clear()

    def read(self, address: int, size: int) -> bytes:
        """Memory from an address on.

        Raises:
            Stopped: it ends before.
        """
        if not 0 <= address <= address + size <= self._memory.data_len(self._store):
            raise Stopped(f"{size} bytes at {address:#x} lie outside the module's memory")
        return bytes(self._memory.read(self._store, address, address + size))

    def write(self, address: int, data: bytes | bytearray) -> None:
        """Change memory from an address on.

        Raises:
            Stopped: it ends before.
        """
        if not 0 <= address <= address + len(data) <= self._memory.data_len(self._store):
            raise Stopped(f"{len(data)} bytes at {address:#x} lie outside the module's memory")
        if data:
            self._memory.write(self._store, bytearray(data), address)

    def u32(self, address: int) -> int:
        """The number at an address, as which pointers are stored too."""
        return int.from_bytes(self.read(address, _WORD), "little")

    def text(self, address: int, size: int | None = None) -> str:
        """A text of so many bytes, or up to a zero byte."""
        if size is None:
            size, left = 0, self._memory.data_len(self._store) - address
            while size < left and b"\0" not in self.read(address + size, min(64, left - size)):
                size += 64
            raw = self.read(address, min(size + 64, left)).partition(b"\0")[0]
        else:
            raw = self.read(address, size)
        return raw.decode(errors="replace")

    def _said(self) -> str:
        """The last lines that it printed since the last time."""
        lines = self._output.decode(errors="replace").strip().splitlines()
        self._output.clear()
        return "; ".join(line.strip() for line in lines[-_MESSAGE_LINES:])

    def _entered(self, function: Callable[..., int | None], *, answers: bool) -> Any:
        """What the module calls in the place of a function of ours."""

        def enter(caller: Any, *arguments: int) -> int | None:
            outer, self._store = self._store, caller
            try:
                # Addresses come as signed numbers.
                result = function(*(argument & 0xFFFFFFFFFFFFFFFF for argument in arguments))
            finally:
                self._store = outer
            return (result or 0) if answers else None

        return enter

    def _offered(self) -> dict[tuple[str, str], Callable[..., int | None]]:
        """What the runtimes for browsers have, and nothing else."""
        environment: dict[str, Callable[..., int | None]] = {
            "TVMFFIWasmSafeCall": self._safe_call,
            "TVMFFIWasmFunctionDeleter": lambda number: self._drop(_pointer(number)),
            "emscripten_notify_memory_growth": lambda _memory: None,
            "__cxa_thread_atexit": lambda *_: None,
        }
        system: dict[str, Callable[..., int | None]] = {
            "clock_time_get": self._clock,
            "environ_get": lambda _entries, _texts: _SUCCESS,
            "environ_sizes_get": self._environment_sizes,
            "fd_close": lambda _file: _SUCCESS,
            "fd_read": lambda *_: _BAD_FILE,
            "fd_seek": lambda *_: _NO_SEEK,
            "fd_write": self._print,
            "proc_exit": self._exit,
        }
        found = {(_ENVIRONMENT, name): function for name, function in environment.items()}
        return found | {(_SYSTEM, name): function for name, function in system.items()}

    def _safe_call(self, number: int, arguments: int, count: int, result: int) -> int:
        self._call(*map(_pointer, (number, arguments, count, result)))
        return 0

    def _clock(self, _clock: int, _precision: int, result: int) -> int:
        self.write(_pointer(result), time.time_ns().to_bytes(8, "little"))
        return _SUCCESS

    def _environment_sizes(self, count: int, size: int) -> int:
        for address in (count, size):
            self.write(_pointer(address), bytes(_WORD))
        return _SUCCESS

    def _print(self, _file: int, pieces: int, count: int, written: int) -> int:
        total = 0
        for piece in range(_pointer(count)):
            place = _pointer(pieces) + 2 * _WORD * piece
            text = self.read(self.u32(place), self.u32(place + _WORD))
            total += len(text)
            self._output += text
        del self._output[:-_LARGEST_OUTPUT]
        self.write(_pointer(written), total.to_bytes(_WORD, "little"))
        return _SUCCESS

    def _exit(self, status: int) -> int:
        raise Stopped(self._said() or f"exit status {_pointer(status)}")


def _pointer(value: int) -> int:
    return value & 0xFFFFFFFF


def _compiled(engine: wasmtime.Engine, data: bytes, where: str) -> wasmtime.Module:
    """The module as machine code, which is kept."""

    def build(target: Any) -> None:
        target.write_bytes(wasmtime.Module(engine, data).serialize())

    try:
        path = toolbox.compiled(["wasm", version("wasmtime"), data], build, "library.cwasm")
        return wasmtime.Module.deserialize_file(engine, str(path))
    except wasmtime.WasmtimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise VerificationError(f"the module can't be compiled ({reason})", where=where) from error
