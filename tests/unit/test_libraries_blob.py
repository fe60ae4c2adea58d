"""TVM's blob, device modules and bytecode: what is written is read back, damage is answered."""

from __future__ import annotations

import struct
from datetime import timedelta

import pytest
from damage import damaged, survives
from hypothesis import given, settings
from hypothesis import strategies as st
from library_builders import BLOB, BYTECODE, OPENCL, bytecode

from edgec.errors import VerificationError
from edgec.libraries.argtypes import type_code, type_name
from edgec.libraries.blob import Blob, BlobModule, blob_size
from edgec.libraries.bytecode import bytecode_functions
from edgec.libraries.device import KINDS, DeviceModule, KernelInfo

# Far above what any of these readers takes: an endless loop fails, a busy machine doesn't.
SLOW = timedelta(seconds=10)
names = st.text(max_size=12)
types = st.one_of(
    st.sampled_from(["handle", "bool", "float8_e4m3fn", "float4_e2m1fn", "handlex2"]),
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["int", "uint", "float", "bfloat"]),
        st.integers(1, 255),
        st.sampled_from(["", "x2", "x65535"]),
    ),
)
kernels = st.builds(
    KernelInfo,
    names,
    st.lists(types, max_size=4).map(tuple),
    st.lists(names, max_size=4).map(tuple),
    st.lists(st.integers(-(2**31), 2**31 - 1), max_size=4).map(tuple),
)


@st.composite
def blobs(draw: st.DrawFn) -> Blob:
    module = st.one_of(
        st.just(BlobModule("_lib", None)),
        st.builds(BlobModule, names.filter(lambda kind: kind != "_lib"), st.binary(max_size=30)),
    )
    modules = draw(st.lists(module, max_size=5).map(tuple))
    rows = [0]
    children: list[int] = []
    for _ in modules:
        children += draw(st.lists(st.integers(0, len(modules) - 1), max_size=3))
        rows.append(len(children))
    return Blob(modules, tuple(rows), tuple(children))


@st.composite
def device_modules(draw: st.DrawFn) -> DeviceModule:
    kind = draw(st.sampled_from(sorted(KINDS)))
    functions = draw(st.dictionaries(names, kernels, max_size=4))
    keys = [""] if kind in {"cuda", "opencl"} else list(functions)
    code = {key: draw(st.binary(max_size=20)) for key in keys}
    return DeviceModule(kind, "" if kind == "webgpu" else draw(names), functions, code)


@settings(deadline=SLOW)
@given(blob=blobs(), after=st.binary(max_size=9))
def test_a_blob_is_read_as_it_was_written_whatever_follows_it(blob: Blob, after: bytes) -> None:
    written = blob.to_bytes()
    assert blob_size(written) == len(written)
    assert Blob.parse(written + after) == blob


@settings(deadline=SLOW)
@given(module=device_modules())
def test_a_device_module_is_read_as_it_was_written(module: DeviceModule) -> None:
    read = DeviceModule.parse(module.kind, module.to_bytes())
    assert read == module
    # The order of kernels is part of the bytes, and dictionaries are equal without it.
    assert list(read.functions) == list(module.functions)
    assert read.to_bytes() == module.to_bytes()


def test_a_device_module_laid_out_by_hand() -> None:
    assert OPENCL.data is not None
    module = DeviceModule.parse("opencl", OPENCL.data)
    assert module.format == "cl"
    assert module.functions == {
        "copy": KernelInfo("copy", ("handle", "int32"), ("blockIdx.x",), (0, 0))
    }
    assert module.code_of("copy") == b"void f"
    assert module.to_bytes() == OPENCL.data


@given(code=st.integers(0, 20), bits=st.integers(0, 255), lanes=st.integers(0, 65535))
def test_argument_types_have_one_name_each(code: int, bits: int, lanes: int) -> None:
    try:
        name = type_name(code, bits, lanes, "here")
    except VerificationError:
        assert code not in range(3) or not bits or not lanes
    else:
        assert type_code(name) == (code, bits, lanes)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ((3, 64, 1), "handle"),
        ((0, 32, 1), "int32"),
        ((1, 8, 1), "uint8"),
        ((2, 16, 4), "float16x4"),
        ((4, 16, 1), "bfloat16"),
        ((6, 8, 1), "bool"),
        ((10, 8, 1), "float8_e4m3fn"),
    ],
)
def test_argument_types_are_called_as_tvm_calls_them(code: tuple[int, int, int], name: str) -> None:
    assert type_name(*code, "here") == name


def test_a_module_can_be_exchanged() -> None:
    cuda = BlobModule("cuda", b"binary")
    patched = BLOB.replace(OPENCL, cuda)
    assert patched.modules == (*BLOB.modules[:2], cuda)
    assert (patched.row_ptr, patched.children) == (BLOB.row_ptr, BLOB.children)
    assert Blob.parse(patched.to_bytes()).of_kind("cuda") == (cuda,)


def test_the_table_of_functions() -> None:
    assert BYTECODE.data is not None
    functions = bytecode_functions(BYTECODE.data + b"constants and instructions")
    assert [(f.name, f.kind, f.parameters) for f in functions] == [
        ("prefill", "vm", ()),
        ("add", "packed", ()),
        ("vm.builtin.copy", "packed", ()),
    ]


@settings(max_examples=300, deadline=SLOW)
@given(data=damaged(BLOB.to_bytes()))
def test_a_damaged_blob_is_answered_with_an_error(data: bytes) -> None:
    survives(lambda d: Blob.parse(d, "here"), data)


@settings(max_examples=300, deadline=SLOW)
@given(kind=st.sampled_from(sorted(KINDS)), data=damaged(OPENCL.data or b""))
def test_a_damaged_device_module_is_answered_with_an_error(kind: str, data: bytes) -> None:
    survives(lambda d: DeviceModule.parse(kind, d, "here"), data)


@settings(max_examples=300, deadline=SLOW)
@given(data=damaged(BYTECODE.data or b""))
def test_damaged_bytecode_is_answered_with_an_error(data: bytes) -> None:
    survives(lambda d: bytecode_functions(d, "here"), data)


def u64s(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}Q", *numbers)


def blob_bytes(*parts: bytes) -> bytes:
    return u64s(sum(map(len, parts))) + b"".join(parts)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\1\2", "the blob's size"),
        (u64s(99), "the blob at byte 0 should have 107 bytes, 8 follow"),
        (blob_bytes(u64s(2**61)), "the import tree"),
        (blob_bytes(u64s(0), u64s(0)), "the import tree is empty"),
        (blob_bytes(u64s(2, 0, 1), u64s(0), u64s(4), b"_lib"), "rows don't fit its children"),
        (blob_bytes(u64s(3, 0, 2, 1), u64s(1, 0), u64s(4), b"_lib", u64s(4), b"_lib"), "rows"),
        (blob_bytes(u64s(2, 0, 1), u64s(1, 1), u64s(4), b"_lib"), "a module that isn't there"),
        (
            blob_bytes(u64s(2, 0, 0), u64s(0), u64s(4), b"\xff\xfe_b"),
            "a module's kind is not UTF-8",
        ),
        (blob_bytes(u64s(2, 0, 0), u64s(0), u64s(4), b"_lib", b"x"), "1 bytes follow the last"),
        (blob_bytes(u64s(2, 0, 0), u64s(0), u64s(3), b"cud"), "the cud module"),
    ],
)
def test_what_is_wrong_with_a_blob(data: bytes, message: str) -> None:
    with pytest.raises(VerificationError, match=message) as caught:
        Blob.parse(data, "model.so")
    assert caught.value.where == "model.so"


def test_what_is_wrong_with_a_device_module() -> None:
    kernel = KernelInfo("k", ("handle",), ())
    twice = DeviceModule("cuda", "cuda", {"k": kernel, "j": kernel}, {"": b""}).to_bytes()
    twice = twice.replace(u64s(1) + b"j", u64s(1) + b"k")
    with pytest.raises(VerificationError, match="the kernel k is there twice"):
        DeviceModule.parse("cuda", twice)
    missing = DeviceModule("metal", "metal", {"k": kernel}, {"other": b""}).to_bytes()
    with pytest.raises(VerificationError, match="there is no code for the kernel k"):
        DeviceModule.parse("metal", missing)


def test_what_is_wrong_with_bytecode() -> None:
    with pytest.raises(VerificationError, match="no bytecode of the Relax virtual machine"):
        bytecode_functions(b"\0" * 20)
    with pytest.raises(VerificationError, match="no kind 7"):
        bytecode_functions(bytecode({"f": 7}))
