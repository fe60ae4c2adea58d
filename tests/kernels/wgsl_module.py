"""Small WebGPU modules as TVM writes them, from hand-written kernels."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edgec.libraries.device import DeviceModule, KernelInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

INDEX = "blockIdx.z * gridDim.x + blockIdx.x"
LIMITS = {"max_buffers": 10, "max_threads": 256, "max_shared_memory_bytes": 32768}
_TYPES = {"int32": "i32", "uint32": "u32", "float32": "f32"}


def module(
    body: str,
    buffers: Sequence[tuple[str, str, bool]],
    scalars: Sequence[tuple[str, str]] = (),
    *,
    group: int = 64,
    head: str = "",
    name: str = "f_kernel",
) -> DeviceModule:
    """A module with one kernel.

    Args:
        body: of its function; ``block`` and ``me`` are the numbers of the group and the item.
        buffers: names, types of the elements, and which are written.
        scalars: names and types as TVM names them.
        group: work-items of a work-group.
        head: what stands before the function.
        name: of the kernel.
    """
    lines = [
        f"@group(0) @binding({place}) var<storage, {'read_write' if written else 'read'}>"
        f" {buffer} : array<{kind}>;"
        for place, (buffer, kind, written) in enumerate(buffers)
    ]
    members = [f"  {scalar}: {_TYPES[kind]}," for scalar, kind in scalars]
    text = "\n".join(
        [
            head,
            *lines,
            "struct PODArgs {",
            *members,
            "  packGridDimX: u32",
            "}",
            f"@group(0) @binding({len(buffers)}) var<uniform> podArgs : PODArgs;",
            f"@compute @workgroup_size({group}, 1, 1)",
            f"fn {name}(@builtin(workgroup_id) blockIdx : vec3<u32>,",
            "  @builtin(num_workgroups) gridDim : vec3<u32>,",
            "  @builtin(local_invocation_id) threadIdx : vec3<u32>) {",
            f"  let block : u32 = {INDEX};",
            "  if (block >= podArgs.packGridDimX) { return; }",
            "  let me : u32 = threadIdx.x;",
            body,
            "}",
        ]
    )
    mark = json.dumps([int(written) for *_, written in buffers])
    types = ("handle",) * len(buffers) + tuple(kind for _, kind in scalars)
    tags = ("blockIdx.x", "threadIdx.x", f"paramWriteAccess:{mark}")
    return DeviceModule("webgpu", "", {name: KernelInfo(name, types, tags)}, {name: text.encode()})
