"""What is changed in kernels for browsers."""

from __future__ import annotations

from edgec.emitters.wgsl_text import with_exact_grids
from edgec.libraries.blob import Blob, BlobModule
from edgec.libraries.device import DeviceModule
from kernels.wgsl_module import module

GUARD = b"podArgs.packGridDimX) { return; }"


def test_the_work_group_after_the_last_leaves_too() -> None:
    right = module("y[me] = 1.0;", [("y", "f32", True)])
    name, text = next(iter(right.code.items()))
    assert b">= " + GUARD in text
    off = DeviceModule(
        "webgpu", "", right.functions, {name: text.replace(b">= " + GUARD, b"> " + GUARD)}
    )
    before = Blob((BlobModule("_lib", None), BlobModule("webgpu", off.to_bytes())), (0, 1, 1), (1,))

    after = with_exact_grids(before)

    (found,) = after.of_kind("webgpu")
    assert found.data == right.to_bytes()
    assert with_exact_grids(after) == after
