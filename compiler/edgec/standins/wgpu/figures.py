"""How long the kernels of a library for browsers are, and how long a device takes to make them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.standins.wgpu.adapter import find_adapter
from edgec.standins.wgpu.program import Program

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.libraries.device import DeviceModule


@dataclass(frozen=True)
class KernelFigures:
    """Of one kernel.

    Attributes:
        wgsl_bytes: of its text.
        pipeline_seconds: that its pipeline took to make, one at a time.
    """

    wgsl_bytes: int
    pipeline_seconds: float


@dataclass(frozen=True)
class ShaderFigures:
    """Of all kernels of a library.

    Attributes:
        adapter: the name of the device that made the pipelines.
        kernels: by name, sorted.
    """

    adapter: str
    kernels: Mapping[str, KernelFigures]

    @property
    def wgsl_bytes(self) -> int:
        """Of all texts."""
        return sum(item.wgsl_bytes for item in self.kernels.values())

    @property
    def pipeline_seconds(self) -> float:
        """Of all pipelines, made one after the other."""
        return sum(item.pipeline_seconds for item in self.kernels.values())


def shader_figures(module: DeviceModule, limits: Mapping[str, int]) -> ShaderFigures:
    """Make all pipelines of a WebGPU module, as a browser does when it loads the library.

    Args:
        module: with kernels in WGSL.
        limits: of the device, by the names of target profiles.

    Raises:
        ToolchainError: there is no device that can run them.
        VerificationError: a kernel's text doesn't fit the way it is called.
        BuildError: a kernel exceeds the limits or is no valid WGSL; it is named.
    """
    with Program(module, limits) as program:
        kernels = {
            name: KernelFigures(len(module.code_of(name)), program.compile(name))
            for name in sorted(module.functions)
        }
    return ShaderFigures(find_adapter().info["device"], kernels)
