"""A WebAssembly module gets what browsers give it, and its end is told in its own words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from edgec.errors import VerificationError
from standin_tools import needs

if TYPE_CHECKING:
    from edgec.standins.wgpu.instance import Instance

pytestmark = needs("wasmtime")

SYSTEM = '"wasi_snapshot_preview1"'
TEXT = f"""(module
  (import {SYSTEM} "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import {SYSTEM} "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import {SYSTEM} "proc_exit" (func $exit (param i32)))
  (import {SYSTEM} "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "env" "TVMFFIWasmSafeCall" (func $call (param i32 i32 i32 i32) (result i32)))
  (import "env" "TVMFFIWasmFunctionDeleter" (func $drop (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 100) "one\\ntwo\\n\\00")
  (data (i32.const 200) "\\64\\00\\00\\00\\08\\00\\00\\00")
  (data (i32.const 300) "\\ff\\ff\\ff\\ff\\ff\\ff\\ff\\ff")
  (func (export "_initialize"))
  (func $print (call $write (i32.const 2) (i32.const 200) (i32.const 1) (i32.const 208)) drop)
  (func (export "written") (result i32) (call $print) (i32.load (i32.const 208)))
  (func (export "says_and_traps") (call $print) unreachable)
  (func (export "chatters") (local $left i32)
    (local.set $left (i32.const 20000))
    (loop $more
      (call $print)
      (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1))))))
  (func (export "traps") unreachable)
  (func (export "leaves") (call $exit (i32.const 7)))
  (func (export "says_and_leaves") (call $print) (call $exit (i32.const 7)))
  (func (export "time") (result i32)
    (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 400)))
    (i32.load (i32.const 404)))
  (func (export "variables") (result i32)
    (drop (call $sizes (i32.const 300) (i32.const 304)))
    (i32.or (i32.load (i32.const 300)) (i32.load (i32.const 304))))
  (func (export "calls") (param i32) (result i32)
    (call $call (local.get 0) (i32.const -16) (i32.const 2) (i32.const 8)))
  (func (export "drops") (call $drop (i32.const 5)))
  (func (export "grows") (result i32) (memory.grow (i32.const 1)))
  (func $deep (export "deep") (call $deep)))
"""


class Calls:
    """What a module called."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.error: Exception | None = None
        self.inner: tuple[Instance, str] | None = None

    def call(self, *arguments: int) -> None:
        self.seen.append(arguments)
        if self.inner:
            instance, name = self.inner
            instance.call(name)
        if self.error:
            raise self.error


def running(text: str, calls: Calls | None = None) -> Instance:
    import wasmtime  # noqa: PLC0415 - may be missing

    from edgec.standins.wgpu.instance import Instance  # noqa: PLC0415 - the same

    calls = calls or Calls()
    data = bytes(wasmtime.wat2wasm(text))
    library: Any = SimpleNamespace(path=Path("m.wasm"), objects=[SimpleNamespace(data=data)])
    return Instance(library, calls.call, calls.seen.append)


def ends(instance: Instance, name: str) -> str:
    from edgec.standins.wgpu.instance import Stopped  # noqa: PLC0415 - see above

    with pytest.raises(Stopped) as caught:
        instance.call(name)
    return str(caught.value)


def test_what_a_system_would_do() -> None:
    instance = running(TEXT)
    assert instance.call("written") == 8
    assert instance.call("time") > 0  # the upper half of nanoseconds
    assert instance.call("variables") == 0


def test_the_end_is_told_in_its_words() -> None:
    instance = running(TEXT)
    assert ends(instance, "says_and_traps") == "one; two"
    # What was said once isn't said again.
    assert "unreachable" in ends(instance, "traps")
    assert ends(instance, "leaves") == "exit status 7"
    assert ends(instance, "says_and_leaves") == "one; two"
    instance.call("chatters")
    assert len(instance._output) <= 1 << 16
    assert ends(instance, "traps") == "one; two; one; two"
    assert "call stack" in ends(instance, "deep")


def test_calls_from_the_module() -> None:
    calls = Calls()
    instance = running(TEXT, calls)
    assert instance.call("calls", 3) == 0
    instance.call("drops")
    assert calls.seen == [(3, 0xFFFFFFF0, 2, 8), 5]
    # A call may call the module again, and may fail.
    calls.inner = instance, "grows"
    instance.call("calls", 3)
    assert instance.read(0x1FFFF, 1) == b"\0"
    calls.error = KeyError("ours")
    with pytest.raises(KeyError, match="ours"):
        instance.call("calls", 3)


def test_memory() -> None:
    from edgec.standins.wgpu.instance import Stopped  # noqa: PLC0415 - see above

    instance = running(TEXT)
    instance.write(1000, b"abc\0def")
    assert instance.read(1001, 4) == b"bc\0d"
    assert instance.text(1000) == "abc"
    assert instance.text(1004, 2) == "de"
    long = b"x" * 1000
    instance.write(0x10000 - 1000, long)
    # To the end of memory where no zero byte is.
    assert instance.text(0x10000 - 1000) == long.decode()
    assert instance.u32(200) == 100
    for address, size in ((0xFFFF, 2), (-1, 1), (0x10001, 0)):
        with pytest.raises(Stopped, match="outside the module's memory"):
            instance.read(address, size)
    with pytest.raises(Stopped, match="2 bytes at 0xffff lie outside"):
        instance.write(0xFFFF, b"ab")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '(module (import "env" "dlopen" (func (param i32))))',
            r"asks for env\.dlopen, which browsers don't have",
        ),
        (
            f'(module (import {SYSTEM} "fd_write" (memory 1)))',
            r"asks for wasi_snapshot_preview1\.fd_write",
        ),
        ('(module (func (export "_initialize")))', "exports no memory"),
        ('(module (memory (export "memory") 1))', "exports no function _initialize"),
    ],
)
def test_a_module_for_another_place(text: str, message: str) -> None:
    with pytest.raises(VerificationError, match=message) as caught:
        running(text)
    assert caught.value.where == "m.wasm"


def test_a_module_that_is_none() -> None:
    from edgec.standins.wgpu.instance import Instance  # noqa: PLC0415 - may be missing

    data = b"\0asm\1\0\0\0\x01"
    library: Any = SimpleNamespace(path=Path("m.wasm"), objects=[SimpleNamespace(data=data)])
    with pytest.raises(VerificationError, match="can't be compiled"):
        Instance(library, lambda *_: None, lambda _: None)
