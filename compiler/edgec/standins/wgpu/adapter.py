"""A device with WebGPU: Mesa's lavapipe, which computes on the CPU, or another that is named."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ADAPTER_VARIABLE = "EDGEC_WGPU_ADAPTER"
_VULKAN, _CPU = "Vulkan", "CPU"
_INSTALL = "install Mesa's Vulkan drivers (Debian: apt-get install mesa-vulkan-drivers)"
# WebGPU's names of limits, and those of target profiles.
_LIMITS = {
    "max-storage-buffers-per-shader-stage": "max_buffers",
    "max-compute-invocations-per-workgroup": "max_threads",
    "max-compute-workgroup-size-x": "max_threads",
    "max-compute-workgroup-size-y": "max_threads",
    "max-compute-workgroup-storage-size": "max_shared_memory_bytes",
}
# Tensors are as large as they are.
_ALL = ("max-storage-buffer-binding-size", "max-buffer-size")
# What WGSL enables, and WebGPU's names of it.
_FEATURES = {"f16": "shader-f16", "subgroups": "subgroup"}


@dataclass(frozen=True)
class Gpu:
    """A device, ready for kernels.

    Attributes:
        name: of the adapter, as its driver gives it.
        device: of the package ``wgpu``.
        largest_buffer: bytes that a kernel can be given at once.
    """

    name: str
    device: Any
    largest_buffer: int


@functools.cache
def find_adapter() -> Any:
    """The adapter of the package ``wgpu``: the one that is named, or else the first CPU's.

    Raises:
        ToolchainError: there is none.
    """
    # The loader of Vulkan complains on stderr where this isn't set.
    os.environ.setdefault("XDG_RUNTIME_DIR", "/tmp")  # noqa: S108 - nothing is written there
    try:
        import wgpu  # noqa: PLC0415 - loads drivers
    except ImportError as error:
        raise ToolchainError(
            "the Python package wgpu is missing, which executes kernels in WGSL",
            where="wgpu",
            remedy="pip install wgpu",
        ) from error
    found = [
        adapter
        for adapter in wgpu.gpu.enumerate_adapters_sync()
        if adapter.info["backend_type"] == _VULKAN
    ]
    if named := os.environ.get(ADAPTER_VARIABLE):
        found = [adapter for adapter in found if named.lower() in adapter.info["device"].lower()]
        if not found:
            raise ToolchainError(
                f"no adapter for Vulkan has {named!r} in its name",
                where=ADAPTER_VARIABLE,
                remedy="correct it, or unset it",
            )
    found.sort(key=lambda adapter: adapter.info["adapter_type"] != _CPU)
    if not found:
        raise ToolchainError("there is no device with WebGPU", where="Vulkan", remedy=_INSTALL)
    return found[0]


def open_gpu(features: Collection[str], limits: Mapping[str, int]) -> Gpu:
    """A device with no more than a profile says.

    Args:
        features: that kernels enable.
        limits: by the names of target profiles; those left out are the adapter's.

    Raises:
        ToolchainError: there is no adapter, or it lacks something.
    """
    adapter = find_adapter()
    name = adapter.info["device"]
    wanted = [_FEATURES.get(feature, feature) for feature in sorted(features)]
    missing = [feature for feature in wanted if feature not in adapter.features]
    asked = {theirs: limits[ours] for theirs, ours in _LIMITS.items() if ours in limits}
    missing += [key for key, value in asked.items() if value > adapter.limits[key]]
    if missing:
        raise ToolchainError(
            f"the adapter {name} lacks {', '.join(missing)}, which the kernels need",
            where="wgpu",
            remedy=f"name another adapter in {ADAPTER_VARIABLE}, or {_INSTALL}",
        )
    asked |= {key: adapter.limits[key] for key in _ALL}
    device = adapter.request_device_sync(required_features=wanted, required_limits=asked)
    return Gpu(name, device, min(adapter.limits[key] for key in _ALL))
