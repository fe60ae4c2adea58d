"""What each kernel of a GPU library takes of the device, against the limits of its profile.

A kernel over a limit fails when it is launched on the device, and often without a word. It is
found here instead, from the code as it goes into the library.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tvm
import tvm_ffi
from tvm import tirx

from edgec.errors import BuildError
from edgec.layouts.specs import nbytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from edgec.layouts.specs import TensorSpec

_POINTER_BYTES = 8
_LISTED = 5


@dataclass(frozen=True)
class KernelNeeds:
    """What one kernel takes.

    Attributes:
        name: of the kernel.
        threads: of one work-group; None if the number isn't constant.
        shared_memory_bytes: local memory of a work-group.
        buffers: arguments that are buffers.
        argument_bytes: of all arguments together.
    """

    name: str
    threads: int | None
    shared_memory_bytes: int
    buffers: int
    argument_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the name."""
        return {key: value for key, value in asdict(self).items() if key != "name"}


@contextmanager
def device_code(kind: str) -> Iterator[list[KernelNeeds]]:
    """Collect what the kernels need that are generated for a device while this is open.

    Args:
        kind: of the device, as TVM names its code generators: ``"opencl"``.
    """
    needs: list[KernelNeeds] = []
    name = f"target.build.{kind}"
    build = tvm.get_global_func(name)

    def observed(mod: tvm.IRModule, target: tvm.target.Target) -> Any:
        needs.extend(kernel_needs(mod))
        return build(mod, target)

    tvm_ffi.register_global_func(name, observed, override=True)
    try:
        yield needs
    finally:
        tvm_ffi.register_global_func(name, build, override=True)


def kernel_needs(mod: tvm.IRModule) -> list[KernelNeeds]:
    """The needs of every kernel of a module of device code, sorted by name."""
    return sorted(
        (_needs(var.name_hint, function) for var, function in mod.functions_items()),
        key=lambda needs: needs.name,
    )


def _needs(name: str, function: tirx.PrimFunc) -> KernelNeeds:
    threads: dict[str, int | None] = {}
    shared = 0

    def extent(node: tirx.AttrStmt) -> None:
        tag = str(node.node.thread_tag) if str(node.attr_key) == "thread_extent" else ""
        if tag.startswith("threadIdx"):
            threads[tag] = int(node.value) if isinstance(node.value, tirx.IntImm) else None

    def allocation(node: tirx.AllocBuffer) -> None:
        nonlocal shared
        if node.buffer.scope().startswith("shared"):
            elements = math.prod(int(size) for size in node.buffer.shape)
            shared += elements * _itemsize(str(node.buffer.dtype))

    tvm_ffi.structural_walk(
        function.body, [(tirx.AttrStmt, extent), (tirx.AllocBuffer, allocation)]
    )
    pointers = [p for p in function.params if isinstance(p.ty, tvm.ir.PointerType)]
    scalars = [p for p in function.params if not isinstance(p.ty, tvm.ir.PointerType)]
    sizes = list(threads.values())
    return KernelNeeds(
        name=name,
        threads=None if None in sizes else math.prod(size for size in sizes if size),
        shared_memory_bytes=shared,
        buffers=len(pointers),
        argument_bytes=_POINTER_BYTES * len(pointers)
        + sum(_itemsize(str(p.ty.dtype)) for p in scalars),
    )


def _itemsize(dtype: str) -> int:
    base, _, lanes = dtype.partition("x")
    return int(np.dtype(base).itemsize) * int(lanes or 1)


def check_kernels(kernels: Iterable[KernelNeeds], limits: Mapping[str, int], target: str) -> None:
    """Refuse kernels that the device can't launch.

    Args:
        kernels: of one library.
        limits: of the target's profile; ``max_threads`` and so on, see :data:`LIMITS`.
        target: the target's name, for messages.

    Raises:
        BuildError: at least one kernel is over a limit; it is named with its figure.
    """
    broken = []
    for kernel in kernels:
        for field, limit in LIMITS.items():
            if limit not in limits:
                continue
            value = getattr(kernel, field)
            if value is None:
                broken.append(f"{kernel.name} launches a number of threads that isn't constant")
            elif value > limits[limit]:
                broken.append(f"{kernel.name}: {field} {value} of at most {limits[limit]}")
    if broken:
        more = f" and {len(broken) - _LISTED} more" if len(broken) > _LISTED else ""
        raise BuildError(
            f"kernels exceed what the device can launch: {'; '.join(broken[:_LISTED])}{more}",
            where=f"{target}: limits",
            remedy="raise the limit in the profile if the device has more, or choose another"
            " quantization or a smaller context.prefill_chunk",
        )


LIMITS = {
    "threads": "max_threads",
    "shared_memory_bytes": "max_shared_memory_bytes",
    "buffers": "max_buffers",
    "argument_bytes": "max_argument_bytes",
}
"""What a kernel needs to the name of the profile's limit on it."""


def check_allocations(
    weights: Sequence[TensorSpec],
    workspace: Mapping[str, int],
    cache_bytes: int,
    limits: Mapping[str, int],
    target: str,
) -> None:
    """Refuse a model one of whose buffers is larger than the device allocates.

    Args:
        weights: as they are stored.
        workspace: bytes of the largest buffer by function.
        cache_bytes: of one layer's part of the KV cache, which is one buffer; 0 without a cache.
        limits: of the target's profile; only ``max_allocation_bytes`` is read.
        target: the target's name, for messages.

    Raises:
        BuildError: a buffer is too large; the largest one is named.
    """
    most = limits.get("max_allocation_bytes")
    if most is None:
        return
    sizes = {f"the weight {spec.name}": nbytes(spec) for spec in weights}
    sizes |= {f"the workspace of {name}": size for name, size in workspace.items()}
    sizes["one layer of the KV cache"] = cache_bytes
    largest = max(sizes, key=lambda name: sizes[name])
    if sizes[largest] > most:
        raise BuildError(
            f"{largest} takes {sizes[largest]} bytes and the device allocates at most {most}"
            " at once",
            where=f"{target}: limits.max_allocation_bytes",
            remedy="quantize further, or lower context.length or context.prefill_chunk"
            if cache_bytes
            else "quantize further, or lower the maximum of a dimension",
        )
