"""What the emulator reads from a kernel's text and from a launch, without compiling anything."""

from __future__ import annotations

import struct

import pytest

from edgec.errors import UsageError, VerificationError
from edgec.libraries.device import DeviceModule, KernelInfo
from edgec.standins.emulation.dialect import find_dialect
from edgec.standins.emulation.extents import Extents, slots
from edgec.standins.emulation.opencl import piece, translate
from edgec.standins.emulation.signature import index_handles, read_only_handles
from edgec.standins.faults import KernelFault

TEXT = """\
// Function: b
__kernel void a(__global int* x);
__kernel void b(__global int* x) { }
// Function: a
__kernel void a(__global int* x, half s) { }
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("void f(__global const int* restrict x, __global int* y, int n)", {0}),
        ("void f(__global int const * x, __global int* const y, int n)", {0}),
        ("void f(const vec<half, 4>* __restrict__ x, int n, float (*y)[3])", {0}),
        ("void f(constant float* x [[buffer(0)]], device uint* y [[ buffer(1) ]], int n)", {0}),
        ("void g(const int* x, const int* y, int n)", set()),
    ],
)
def test_const_buffers(text: str, expected: set[int]) -> None:
    assert read_only_handles(text, "f", ["handle", "handle", "int32"]) == expected


def test_const_counts_handles_not_parameters() -> None:
    text = "void f(int n, int* x, const int* y)"
    assert read_only_handles(text, "f", ["int32", "handle", "handle"]) == {2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("void f(__global int* restrict x, __global half* y, int n)", {0}),
        ("void f(device const float* x [[buffer(0)]], device int* y [[buffer(1)]], int n)", {1}),
        ("void f(uint* __restrict__ x, unsigned int* y, int n)", {1}),
        ("void f(float4* x, __global uint* y, int n)", set()),
        ("void f(__global long* x, __global const int64_t* y, int n)", {0, 1}),
    ],
)
def test_buffers_of_signed_integers(text: str, expected: set[int]) -> None:
    assert index_handles(text, "f", ["handle", "handle", "int32"]) == expected


def test_pieces_of_the_text() -> None:
    assert piece(TEXT, "b").splitlines()[-1] == "__kernel void b(__global int* x) { }"
    assert piece(TEXT, "a").startswith("// Function: a\n")
    info = KernelInfo("a", ("handle", "float16"), ("blockIdx.x",))
    text = translate(DeviceModule("opencl", "cl", {"a": info}, {"": TEXT.encode()}), "a")
    # Messages name lines of the whole text.
    assert text.startswith("#line 4\n// Function: a")
    assert "a((__global void*)slots[0], *(const half*)(slots + 1));" in text
    with pytest.raises(VerificationError, match="kernel c"):
        piece(TEXT, "c")


def test_extents_by_tag() -> None:
    tags = ("threadIdx.y", "blockIdx.x", "threadIdx.x", "tirx.use_dyn_shared_memory")
    info = KernelInfo("f", (), tags)
    assert Extents.of(info, [2, 3, 4, 500]) == Extents((3, 1, 1), (4, 2, 1), 500)
    assert Extents.of(info, [2, 3, 4, 0]).dynamic_shared == 0
    with pytest.raises(KernelFault, match=r"kernel f: .* -1 as the extent of blockIdx\.x"):
        Extents.of(info, [2, -1, 4, 0])


def test_slots_are_little_endian_and_wrap() -> None:
    types = ("handle", "int32", "uint8", "float16", "float32", "float64", "bool")
    raw = slots(KernelInfo("f", types, ()), [2**47, -2, 255, 1.5, -0.25, 1e300, True])
    assert [raw[i : i + 8] for i in range(0, 16, 8)] == [
        struct.pack("<Q", 2**47),
        struct.pack("<q", -2),
    ]
    assert raw[16] == 255
    assert struct.unpack("<e", raw[24:26]) == (1.5,)
    assert struct.unpack("<f", raw[32:36]) == (-0.25,)
    assert struct.unpack("<d", raw[40:48]) == (1e300,)
    assert raw[48] == 1


def test_a_kind_that_cant_be_executed() -> None:
    for kind in ("vulkan", "program"):
        with pytest.raises(UsageError, match=kind):
            find_dialect(kind)
