"""Host functions that run in the WebAssembly module in which they ship."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

from edgec.errors import EdgecError, VerificationError
from edgec.libraries.open import FUNCTION_PREFIX
from edgec.standins.guest import wire
from edgec.standins.guest.process import Reply
from edgec.standins.wgpu import ffi
from edgec.standins.wgpu.arguments import Arguments
from edgec.standins.wgpu.ffi import Runtime, Value
from edgec.standins.wgpu.instance import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgec.libraries.open import LibraryFile

_DEVICE_API, _CREATE_SHADER = "wasm.WebGPUDeviceAPI", "wasm.WebGPUCreateShader"
_ALLOCATE, _FREE = "deviceAllocDataSpace", "deviceFreeDataSpace"
# Handles of tensors lie beyond the module's memory, so that no address in it is taken for one.
_FIRST_HANDLE = 0xF0000000
_INTEGER, _REAL = struct.Struct("<q"), struct.Struct("<d")


class WasmHost:
    """Runs functions of one library; has the methods of :class:`edgec.standins.guest.process.Guest`.

    The device's memory is known to the module by handles, small numbers, as in browsers. It can't
    look into it: kernels that it launches arrive here, and run after the function.

    Args:
        library: the module.
        device: type of the device that its tensors are on, as DLPack numbers them.

    Raises:
        VerificationError: the module can't run in browsers, or isn't what it seems.
    """

    def __init__(self, library: LibraryFile, device: int) -> None:
        self._library = library
        self._device = device
        self._launches: list[wire.Launch] = []
        self._functions: list[tuple[str, int]] = []
        self._allocate: Callable[[int], int] | None = None
        # Of this call: handles by address, and the other way round.
        self._handles: dict[int, int] = {}
        self._addresses: dict[int, int] = {}
        # Of all calls, for the runtime keeps what it was given: bytes by handle.
        self._workspace: dict[int, int] = {}
        self._workspaces = 0
        try:
            self._runtime = Runtime(library)
            self._runtime.register(_DEVICE_API, self._device_function)
            self._runtime.register(_CREATE_SHADER, self._shader)
            self._module = self._runtime.call(self._runtime.global_function("ffi.SystemLib"))
            self._find = self._runtime.global_function("ffi.ModuleGetFunction")
        except Stopped as stop:
            raise self._error(f"the module ended while loading its library ({stop})") from stop

    def close(self) -> None:
        """Forget the module."""
        self._functions.clear()

    def resolve(self, symbol: str) -> int:
        """The number of a function, counted from zero in the order of these calls.

        Raises:
            VerificationError: the library has no such function.
        """
        name = symbol.removeprefix(FUNCTION_PREFIX)
        try:
            found = self._runtime.call(self._find, self._module, name, Value(ffi.BOOL, 0, 1))
        except Stopped as stop:
            raise self._error(f"the module ended while looking for {symbol} ({stop})") from stop
        if found.kind != ffi.FUNCTION:
            raise VerificationError(
                f"the library has no function {symbol}", where=str(self._library.path)
            )
        self._functions.append((symbol, found.address))
        return len(self._functions) - 1

    def call(self, request: bytes, allocate: Callable[[int], int]) -> Reply:
        """Call a function.

        Args:
            request: as ``protocol.h`` lays it out.
            allocate: gives the function device memory: bytes to address.

        Raises:
            VerificationError: the function raised an error, or ended the module.
        """
        symbol, function = self._functions[wire.REQUEST.unpack_from(request)[2]]
        self._launches, self._allocate = [], allocate
        self._handles, self._addresses = {}, {}
        self._runtime.instance.forget_output()
        try:
            arguments = Arguments(request, self._handle)
            base = self._runtime.scratch(arguments.size)
            self._runtime.instance.write(base, arguments.at(base))
            value = self._runtime.call_in_place(
                function, base, arguments.count, base + arguments.result
            )
            contents = arguments.contents(self._runtime.instance.read, base)
        except Stopped as stop:
            raise self._error(f"the host code ended while running {symbol} ({stop})") from stop
        if value.kind >= ffi.OBJECTS:
            raise self._error(f"{symbol} gives an object back, and no number")
        return Reply(self._launches, value.pack(), memoryview(contents))

    def _handle(self, address: int) -> int:
        """What the module calls the memory at an address during this call."""
        if not address:
            return 0
        if address not in self._handles:
            handle = _FIRST_HANDLE + len(self._handles)
            self._handles[address] = handle
            self._addresses[handle] = address
        return self._handles[address]

    def _address(self, handle: int) -> int:
        """The memory that a handle stands for; the handle itself if it stands for none."""
        if handle in self._workspace and handle not in self._addresses:
            # New in every call, so that nothing is read that an earlier one left there.
            assert self._allocate is not None, "no function is running"
            self._addresses[handle] = self._allocate(self._workspace[handle])
        return self._addresses.get(handle, handle)

    def _device_function(self, values: Sequence[Value]) -> Value:
        """What the runtime does with the device's memory."""
        name = self._runtime.text(values[0])
        known = {_ALLOCATE: self._new_workspace, _FREE: self._drop_workspace}

        def refuse(_values: Sequence[Value]) -> Value:
            raise self._error(f"the host code calls {name}, and may only launch kernels")

        return self._runtime.function(known.get(name, refuse))

    def _new_workspace(self, values: Sequence[Value]) -> Value:
        self._workspaces += 1
        self._workspace[self._workspaces] = values[0].bits
        # JavaScript has no other numbers.
        bits = int.from_bytes(_REAL.pack(self._workspaces), "little")
        return Value(ffi.REAL, 0, bits)

    def _drop_workspace(self, values: Sequence[Value]) -> Value:
        self._workspace.pop(values[0].address, None)
        return Value()

    def _shader(self, values: Sequence[Value]) -> Value:
        """The function by which the host code launches a kernel."""
        name = json.loads(self._runtime.text(values[0]))["name"]

        def launch(arguments: Sequence[Value]) -> Value:
            numbers = tuple(map(self._number, arguments))
            self._launches.append(wire.Launch(name, numbers))
            return Value()

        return self._runtime.function(launch)

    def _number(self, value: Value) -> int | float:
        if value.kind == ffi.POINTER:
            return self._address(value.address)
        raw = value.bits.to_bytes(8, "little")
        if value.kind == ffi.REAL:
            return float(_REAL.unpack(raw)[0])
        if value.kind in {ffi.INTEGER, ffi.BOOL}:
            return int(_INTEGER.unpack(raw)[0])
        if value.kind == ffi.NONE:
            return 0
        raise self._error(f"a kernel is launched with a value of the type {value.kind}")

    def _error(self, what: str) -> EdgecError:
        return VerificationError(
            what,
            where=str(self._library.path),
            remedy="this library would fail in a browser too; report it with the target's name",
        )
