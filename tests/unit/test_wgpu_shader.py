"""What WGSL asks of a device is read from its text, and compared with how it is called."""

from __future__ import annotations

import pytest

from edgec.errors import BuildError, VerificationError
from edgec.libraries.device import KernelInfo
from edgec.standins.wgpu.shader import Shader

TEXT = """enable f16;

@group(0) @binding(0) var<storage, read> x_ptr : array<f16>;
@group(0) @binding(1) var<storage, read_write> y_ptr : array<vec4<f32>>;

struct PODArgs {
  n: i32,
  scale: f32,
  count: u32,
  packGridDimX: u32
}
@group(0) @binding(2) var<uniform> podArgs : PODArgs;

var<workgroup> a : array<f32, 64>;
var<workgroup> b : array<vec4<f16>, 32>;
var<workgroup> c : array<vec3<f32>, 2>;
var<workgroup> d : array<atomic<u32>, 3>;
var<workgroup> e : i32;
@compute @workgroup_size(16, 2, 8)
fn f_kernel(@builtin(workgroup_id) blockIdx : vec3<u32>) {}
"""
TYPES = ("handle", "handle", "int32", "float32", "uint32")
LIMITS = {"max_buffers": 2, "max_threads": 256, "max_shared_memory_bytes": 560}


def info(types: tuple[str, ...] = TYPES, mark: str = "[0,1]") -> KernelInfo:
    return KernelInfo("f_kernel", types, ("blockIdx.x", f"paramWriteAccess:{mark}", "threadIdx.x"))


def test_what_a_text_asks_for() -> None:
    shader = Shader.parse(TEXT, info())
    assert shader.features == ("f16",)
    assert shader.written == (False, True)
    assert shader.scalars == ("i32", "f32", "u32")
    assert shader.group == (16, 2, 8)
    assert shader.group_bytes == 64 * 4 + 32 * 8 + 2 * 16 + 3 * 4 + 4
    shader.check("f_kernel", LIMITS)
    shader.check("f_kernel", {})


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("max_buffers", "2 storage buffers and the device has 1"),
        ("max_threads", "256 work-items in a work-group and the device has 255"),
        ("max_shared_memory_bytes", "560 bytes of work-group memory and the device has 559"),
    ],
)
def test_too_much_is_refused(limit: str, message: str) -> None:
    with pytest.raises(BuildError, match=message) as caught:
        Shader.parse(TEXT, info()).check("f_kernel", {**LIMITS, limit: LIMITS[limit] - 1})
    assert caught.value.where == "kernel f_kernel"
    assert limit in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@workgroup_size(16, 2, 8)", "", "no size of its work-groups"),
        ("@binding(1)", "@binding(3)", "2 buffers aren't bound in order"),
        ("@binding(2)", "@binding(4)", "scalars aren't bound after its buffers"),
        ("read_write", "read", "launch tags say otherwise which buffers it writes"),
        ("  packGridDimX: u32\n", "", "the last of its scalars isn't packGridDimX"),
        ("n: i32", "n: f32", "scalars are f32, f32, u32 and it is called with int32, float32"),
        ("@group(0) @binding(2) var<uniform> podArgs : PODArgs;", "", "scalars aren't bound"),
        ("e : i32", "e : mat2x2<f32>", "a variable of the type mat2x2<f32>"),
    ],
)
def test_a_text_that_does_not_fit(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(VerificationError, match=message) as caught:
        Shader.parse(TEXT.replace(old, new), info())
    assert caught.value.where == "kernel f_kernel"


def test_tags_without_an_extent() -> None:
    assert info().extent_tags == ("blockIdx.x", "threadIdx.x")
    assert info().written == (False, True)
    assert KernelInfo("f", ("handle",), ("blockIdx.x",)).written is None


@pytest.mark.parametrize("mark", ["[0]", "[0,2]", "[0,[1]]", "1", "[0,1", '["a","b"]', "[0,1,1]"])
def test_damaged_marks(mark: str) -> None:
    with pytest.raises(VerificationError, match="its 2 buffers aren't marked by"):
        _ = info(mark=mark).written
