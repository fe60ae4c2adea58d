"""WebAssembly modules are read, and libraries are found in their memory."""

from __future__ import annotations

import tracemalloc
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from damage import damaged, survives
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library_builders import BLOB, OPENCL
from wasm_module import (
    FUNCTION,
    GLOBAL,
    HEAD,
    I32,
    MEMORY,
    TABLE,
    Memory,
    constant,
    module,
    number,
    section,
    text,
    vector,
)

from edgec.cli.library_lines import library_lines
from edgec.errors import VerificationError
from edgec.inspection.library import inspect_libraries
from edgec.libraries.facts import facts
from edgec.libraries.open import open_library
from edgec.libraries.wasm import Wasm, WasmExport, WasmImport

if TYPE_CHECKING:
    from pathlib import Path

BIN = "__tvm_ffi__library_bin"
NAMES = (
    b"\0__tvm_ffi_take\0__tvm_ffi_add\0__tvm_ffi__library_ctx\0__tvm_ffi_\0 __tvm_ffi_not here\0"
)


def memory(blob: bytes = BLOB.to_bytes()) -> Memory:
    return Memory({70000: NAMES, 1024: b"code" + blob}, {BIN: 1028, "other": 70001})


def parsed(data: bytes) -> Wasm:
    return Wasm.parse(data, "m.wasm")


def test_imports_and_exports() -> None:
    others = [
        text("env") + text("tables") + bytes([TABLE, 0x70, 1]) + number(3) + number(300),
        text("env") + text("more") + bytes([MEMORY, 0]) + number(2),
    ]
    image = parsed(module(memory(), others))
    assert image.kind == "module"
    assert image.imports == (
        WasmImport("env", "call", "function"),
        WasmImport("env", "base", "global"),
        WasmImport("env", "tables", "table"),
        WasmImport("env", "more", "memory"),
    )
    assert image.exports[0] == WasmExport("memory", "memory", 0)
    assert image.exported == (BIN, "memory", "other")
    assert image.undefined == ("env.base", "env.call", "env.more", "env.tables")
    assert image.globals == (0xFFFFFFFD, 1028, 70001)


def test_memory_is_read_across_segments() -> None:
    held = {300: b"ab", 100: b"front", 302: b"cdef", 311: b"z", 100 + (1 << 25): b"far"}
    image = parsed(module(Memory(held, {"a": 301, "z": 311, "free": 309})))
    assert [segment.address for segment in image.segments] == sorted(held)
    # What lies between segments is zero, and what is far away isn't reached.
    assert bytes(image.read("a")) == b"bcdef\0\0\0\0\0z"
    assert bytes(image.read("z")) == b"z"
    with pytest.raises(VerificationError, match="the symbol free lies outside the data"):
        image.read("free")
    with pytest.raises(VerificationError, match="there is no symbol nothing"):
        image.read("nothing")


def test_many_gaps_take_no_more_memory_than_one() -> None:
    step = 1 << 23
    held = {place * step: b"x" for place in range(1, 200)}
    image = parsed(module(Memory(held, {"a": step})))
    tracemalloc.start()
    assert len(image.read("a")) <= 3 * step
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * step


def test_texts_with_a_beginning() -> None:
    image = parsed(module(memory()))
    found = image.strings("__tvm_ffi_")
    assert found == {"__tvm_ffi_take", "__tvm_ffi_add", "__tvm_ffi__library_ctx"}
    assert image.strings("__tvm_ffi_t") == {"__tvm_ffi_take"}
    # No more than linear in a text that always begins anew.
    hostile = Memory({0: b"__tvm_ffi_" * 200_000}, {})
    assert not parsed(module(hostile)).strings("__tvm_ffi_")


def test_a_library_in_a_module(tmp_path: Path) -> None:
    path = tmp_path / "model.wasm"
    path.write_bytes(module(memory()))
    library = open_library(path)
    assert (library.form, library.machine, library.prefix) == ("wasm", "wasm32", "")
    assert library.object_format == "wasm"
    assert library.blob == BLOB
    assert library.device is not None
    assert library.device.to_bytes() == OPENCL.data
    assert library.host_functions == ("add", "take")
    assert library.host_symbol("add") == "__tvm_ffi_add"
    found = facts(library)
    assert found["undefined"] == ["env.base", "env.call"]
    assert found["builtins"] == ["vm.builtin.copy"]
    (report,) = inspect_libraries(path)
    lines = dict(library_lines(report, "model.wasm"))
    assert lines["library"] == "model.wasm: WebAssembly module for wasm32"


def test_an_object_is_one_part_of_a_library(tmp_path: Path) -> None:
    path = tmp_path / "lib0.o"
    path.write_bytes(HEAD + section(0, text("linking") + b"\2"))
    with pytest.raises(VerificationError, match="one part of a library, of the kind object"):
        open_library(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0asm\2\0\0\0", "of the version 2"),
        (HEAD + b"\7\5\0", "the exports|a section"),
        (HEAD + section(7, vector([])) * 2, "section 7 is there twice"),
        (HEAD + section(7, vector([]) + b"\0"), "1 bytes follow the last of the exports"),
        (HEAD + section(7, b"\xff\xff\xff\xff\xff\xff"), "a number in the exports is too long"),
        (HEAD + section(7, vector([text("f") + b"\x09\0"])), "no kind 9 in the exports"),
        (HEAD + section(7, vector([b"\x01\xff\0\0"])), "not UTF-8"),
        (HEAD + section(11, vector([b"\3"])), "no kind 3 in the data"),
        (HEAD + section(6, vector([b"\x7f\0\x41\1\x41\1\x0b"])), "longer than linkers write"),
        (HEAD, f"no symbol ends in {BIN}"),
        (
            HEAD
            + section(6, vector([bytes([I32, 0, 0x23, 0, 0x0B])]))
            + section(7, vector([text(BIN) + bytes([GLOBAL, 0])])),
            "the address of .* is no constant",
        ),
        (HEAD + section(7, vector([text(BIN) + bytes([GLOBAL, 5])])), "is no constant"),
        (HEAD + section(7, vector([text(BIN) + bytes([FUNCTION, 0])])), "there is no symbol"),
        (module(memory(b"short")), "the blob"),
    ],
)
def test_damage_is_named(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.wasm"
    path.write_bytes(data)
    with pytest.raises(VerificationError, match=message) as caught:
        open_library(path)
    assert str(path) in caught.value.where


def test_expressions_of_every_kind() -> None:
    values = [
        constant(-1),
        b"\x42\x80\x01\x0b",  # i64.const 128
        b"\x43\0\0\0\0\x0b",  # f32.const
        b"\x44\0\0\0\0\0\0\0\0\x0b",  # f64.const
        b"\xd0\x70\x0b",  # ref.null func
        b"\xd2\x05\x0b",  # ref.func 5
        b"\x23\x81\x01\x0b",  # global.get 129
    ]
    rows = vector([bytes([I32, 0]) + value for value in values])
    assert parsed(HEAD + section(6, rows)).globals == (0xFFFFFFFF, 128, *[None] * 5)


@settings(
    max_examples=300,
    deadline=timedelta(seconds=10),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.one_of(damaged(module(memory()))))
def test_any_damage_is_an_error(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "here"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        facts(open_library(path))

    survives(read, data)
