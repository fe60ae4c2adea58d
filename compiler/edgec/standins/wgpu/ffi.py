"""TVM's runtime in a WebAssembly module, called as the runtimes for browsers call it.

A value of TVM's is 16 bytes: the index of its type, what short texts need, and 8 bytes. A pointer
takes the first 4 of these; what is in the others is undefined.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, TypeAlias

from edgec.errors import VerificationError
from edgec.standins.wgpu.instance import Instance, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgec.libraries.open import LibraryFile

VALUE = struct.Struct("<iIQ")
# Indices of types.
NONE, INTEGER, BOOL, REAL, POINTER, FUNCTION, OBJECTS = 0, 1, 2, 3, 4, 68, 64
_RAW_TEXT, _BYTES, _SHORT_TEXT, _TEXT = 8, 9, 11, 65
# What an object begins with: counts, the index of its type, the function that deletes it.
OBJECT = struct.Struct("<QiIQ")
_WORD = 4
_SPAN = struct.Struct("<II")  # address and size of a text
_SHORT_TEXT_AT = 8
_ALIGNMENT = 64  # bytes: what code may assume of a tensor


@dataclass(frozen=True)
class Value:
    """A value of TVM's.

    Attributes:
        kind: index of its type.
        extra: the size of a short text.
        bits: a number's, or an address.
        place: its own address; zero if it isn't in memory.
    """

    kind: int = NONE
    extra: int = 0
    bits: int = 0
    place: int = 0

    @property
    def address(self) -> int:
        """Of what it points to."""
        return self.bits & 0xFFFFFFFF

    def pack(self) -> bytes:
        """As it lies in memory."""
        return VALUE.pack(self.kind, self.extra, self.bits)


Callback: TypeAlias = "Callable[[Sequence[Value]], Value]"


class Runtime:
    """The runtime in a module.

    Args:
        library: the module.

    Attributes:
        instance: the module, running.

    Raises:
        VerificationError: it can't run in browsers.
    """

    def __init__(self, library: LibraryFile) -> None:
        self._where = str(library.path)
        self._callbacks: dict[int, Callback] = {}
        self._numbers = count(1)
        self._scratch, self._scratch_bytes = 0, 0
        self.instance = Instance(library, self._called, self._dropped)
        # Functions are made while scratch memory holds the arguments of a call.
        self._cell = self.instance.call("TVMWasmAllocSpace", _WORD)

    def scratch(self, size: int) -> int:
        """Address of memory for ``size`` bytes, at a multiple of 64; the next call reuses it."""
        if size > self._scratch_bytes:
            if self._scratch:
                self.instance.call("TVMWasmFreeSpace", self._scratch)
            self._scratch_bytes = 2 * size
            wanted = self._scratch_bytes + _ALIGNMENT
            self._scratch = self.instance.call("TVMWasmAllocSpace", wanted)
        return self._scratch + -self._scratch % _ALIGNMENT

    def global_function(self, name: str) -> int:
        """The handle of a function that the runtime registers.

        Raises:
            VerificationError: there is none of the name.
        """
        self._check("TVMFFIFunctionGetGlobal", self._name(name), self._cell)
        handle = self.instance.u32(self._cell)
        if not handle:
            raise VerificationError(f"the runtime has no function {name}", where=self._where)
        return handle

    def register(self, name: str, callback: Callback) -> None:
        """Give the runtime a function."""
        function = self.function(callback)
        self._check("TVMFFIFunctionSetGlobal", self._name(name), function.address, 1)
        self.instance.call("TVMFFIObjectDecRef", function.address)

    def function(self, callback: Callback) -> Value:
        """A new function of the runtime's, which belongs to who asks for it."""
        number = next(self._numbers)
        self._callbacks[number] = callback
        self._check("TVMFFIWasmFunctionCreate", number, self._cell)
        return Value(FUNCTION, 0, self.instance.u32(self._cell))

    def call(self, function: int, *arguments: int | str | Value) -> Value:
        """Call a function.

        Args:
            function: its handle.
            arguments: of it.

        Raises:
            Stopped: it doesn't come back, or with an error.
        """
        texts = {
            i: item.encode() + b"\0" for i, item in enumerate(arguments) if isinstance(item, str)
        }
        result = VALUE.size * len(arguments)
        base = self.scratch(result + VALUE.size + sum(map(len, texts.values())))
        text = base + result + VALUE.size
        message = b""
        for index, item in enumerate(arguments):
            if isinstance(item, Value):
                message += item.pack()
            elif isinstance(item, int):
                message += Value(INTEGER, 0, item).pack()
            else:
                message += Value(_RAW_TEXT, 0, text).pack()
                text += len(texts[index])
        self.instance.write(base, message + Value().pack() + b"".join(texts.values()))
        return self.call_in_place(function, base, len(arguments), base + result)

    def call_in_place(self, function: int, arguments: int, number: int, result: int) -> Value:
        """Call a function whose arguments are in memory.

        Args:
            function: its handle.
            arguments: their address.
            number: how many.
            result: address for the result, where the value None is.

        Raises:
            Stopped: it doesn't come back, or with an error.
        """
        self._check("TVMFFIFunctionCall", function, arguments, number, result)
        return self._value(result)

    def text(self, value: Value) -> str:
        """The text that a value in memory is.

        Raises:
            Stopped: it is no text.
        """
        if value.kind == _RAW_TEXT:
            return self.instance.text(value.address)
        if value.kind == _SHORT_TEXT:
            return self.instance.text(value.place + _SHORT_TEXT_AT, value.extra)
        if value.kind not in {_BYTES, _TEXT}:
            raise Stopped(f"a value of the type {value.kind} is no text")
        span = value.address + (OBJECT.size if value.kind == _TEXT else 0)
        return self.instance.text(*_SPAN.unpack(self.instance.read(span, _SPAN.size)))

    def _value(self, place: int) -> Value:
        kind, extra, bits = VALUE.unpack(self.instance.read(place, VALUE.size))
        return Value(kind, extra, bits, place)

    def _check(self, name: str, *arguments: int) -> None:
        if self.instance.call(name, *arguments):
            raise Stopped(self.instance.text(self.instance.call("TVMFFIWasmGetLastError")))

    def _name(self, name: str) -> int:
        """Address of a name in the form in which the runtime's C interface takes it."""
        raw = name.encode()
        place = self.scratch(_SPAN.size + len(raw))
        self.instance.write(place, _SPAN.pack(place + _SPAN.size, len(raw)) + raw)
        return place

    def _called(self, number: int, arguments: int, size: int, result: int) -> None:
        values = [self._value(arguments + VALUE.size * index) for index in range(size)]
        self.instance.write(result, self._callbacks[number](values).pack())

    def _dropped(self, number: int) -> None:
        self._callbacks.pop(number, None)
