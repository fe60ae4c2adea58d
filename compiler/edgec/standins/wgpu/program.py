"""The kernels of a WebGPU module, executed by a device with WebGPU."""

from __future__ import annotations

import re
import struct
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import wgpu

from edgec.errors import BuildError, UsageError, VerificationError
from edgec.standins.emulation.extents import Extents
from edgec.standins.faults import KernelFault
from edgec.standins.wgpu.adapter import open_gpu
from edgec.standins.wgpu.buffers import Buffers
from edgec.standins.wgpu.shader import Shader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

    from edgec.libraries.device import DeviceModule

_MOST_GROUPS = 65535
_LARGEST_WORD = 0xFFFFFFFF
# Of the reports of errors: lines around what matters, drawings of the text, where it is.
_FRAME = ("Validation Error", "Caused by", "In wgpu")
_DRAWN = re.compile("[│┌]")
_PLACE = re.compile(r"wgsl:(\d+):(\d+)")


class Program:
    """Kernels of one module; each is compiled when it is launched for the first time.

    A launch brings its buffers to the device, and those that it writes back, so that the memory
    of this process is always up to date.

    Args:
        module: with kernels in WGSL.
        limits: of the device, by the names of target profiles.

    Raises:
        ToolchainError: there is no device that can run them.
        VerificationError: a kernel's text doesn't fit the way it is called.
        BuildError: a kernel exceeds the limits.
    """

    def __init__(self, module: DeviceModule, limits: Mapping[str, int]) -> None:
        self._shaders: dict[str, Shader] = {}
        for name, info in module.functions.items():
            self._shaders[name] = Shader.parse(module.code[name].decode(), info)
            self._shaders[name].check(name, limits)
        self._infos = module.functions
        features = {item for shader in self._shaders.values() for item in shader.features}
        self._gpu = open_gpu(features, limits)
        self._pipelines: dict[str, Any] = {}
        self._buffers = Buffers(self._gpu.device)

    def compile(self, name: str) -> float:
        """Make the pipeline of a kernel.

        Returns:
            The seconds that it took; zero if it was there.

        Raises:
            BuildError: its text is no valid WGSL, or the device refuses it.
        """
        if name in self._pipelines:
            return 0.0
        start = time.perf_counter()
        try:
            self._pipelines[name] = self._pipeline(name)
        except wgpu.GPUError as error:
            raise BuildError(
                f"WebGPU rejects it: {_reason(error)}", where=f"kernel {name}"
            ) from error
        return time.perf_counter() - start

    def launch(
        self,
        name: str,
        arguments: Sequence[int | float],
        extents: Sequence[int],
        sizes: Mapping[int, int],
    ) -> None:
        """Run one kernel to its end.

        Args:
            name: of the kernel in the module.
            arguments: in the kernel's order: a buffer is an address, scalars are numbers.
            extents: one for each of the kernel's extent tags.
            sizes: bytes of each buffer, by its argument's position.

        Raises:
            KernelFault: WebGPU refuses the launch.
            BuildError: WebGPU rejects the kernel.
            UsageError: a buffer is too large for the adapter.
        """
        if name not in self._shaders:
            raise VerificationError("the device module has no such kernel", where=f"kernel {name}")
        self.compile(name)
        info, shader = self._infos[name], self._shaders[name]
        groups, columns = _groups(name, Extents.of(info, extents), shader)
        spans, scalars = [], []
        for index, kind in enumerate(info.arg_types):
            if kind == "handle":
                spans.append((int(arguments[index]), sizes[index]))
            else:
                scalars.append(arguments[index])
        self._check(name, spans, shader)
        try:
            self._run(name, spans, _words(name, shader, scalars, columns), groups)
        except wgpu.GPUError as error:
            raise KernelFault(name, f"WebGPU refuses the launch: {_reason(error)}") from error
        finally:
            self._buffers.give_back()

    def close(self) -> None:
        """Forget the kernels; nothing may be launched any more."""
        self._pipelines = {}
        self._buffers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, name: str, spans: Sequence[tuple[int, int]], shader: Shader) -> None:
        """What WebGPU asks of buffers that are bound together."""
        writes: dict[int, bool] = {}
        for (address, size), written in zip(spans, shader.written, strict=True):
            if address in writes and (written or writes[address]):
                raise KernelFault(
                    name, "it is given one buffer twice and writes it, which WebGPU refuses"
                )
            writes[address] = written
            if size > self._gpu.largest_buffer:
                raise UsageError(
                    f"the kernel {name} is given {size} bytes and {self._gpu.name} binds at most"
                    f" {self._gpu.largest_buffer}",
                    where="wgpu",
                    remedy="verify a model with smaller tensors on this machine",
                )

    def _pipeline(self, name: str) -> Any:
        """As the runtimes for browsers make it."""
        device, shader = self._gpu.device, self._shaders[name]
        types = ["storage" if written else "read-only-storage" for written in shader.written]
        entries = [
            {"binding": place, "visibility": wgpu.ShaderStage.COMPUTE, "buffer": {"type": kind}}
            for place, kind in enumerate([*types, "uniform"])
        ]
        bound = device.create_bind_group_layout(entries=entries)
        return device.create_compute_pipeline(
            layout=device.create_pipeline_layout(bind_group_layouts=[bound]),
            compute={
                "module": device.create_shader_module(code=shader.text),
                "entry_point": name,
            },
        )

    def _run(
        self, name: str, spans: Sequence[tuple[int, int]], words: bytes, groups: Sequence[int]
    ) -> None:
        device, pipeline = self._gpu.device, self._pipelines[name]
        buffers = [self._buffers.storage(*span) for span in spans]
        entries = [
            {"binding": place, "resource": {"buffer": buffer, "offset": 0, "size": buffer.size}}
            for place, buffer in enumerate([*buffers, self._buffers.uniform(words)])
        ]
        encoder = device.create_command_encoder()
        run = encoder.begin_compute_pass()
        run.set_pipeline(pipeline)
        run.set_bind_group(
            0,
            device.create_bind_group(layout=pipeline.get_bind_group_layout(0), entries=entries),
        )
        run.dispatch_workgroups(*groups)
        run.end()
        written = self._shaders[name].written
        results = [buffer for buffer, writes in zip(buffers, written, strict=True) if writes]
        downloaded = self._buffers.download(encoder, results) if results else None
        device.queue.submit([encoder.finish()])
        if downloaded is not None:
            places = [span for span, writes in zip(spans, written, strict=True) if writes]
            self._buffers.read(downloaded, places)


def _groups(name: str, extent: Extents, shader: Shader) -> tuple[tuple[int, int, int], int]:
    """Work-groups in x, y and z as the runtimes for browsers divide them, and those in x alone."""
    columns, rows, layers = extent.grid
    if extent.group != shader.group:
        raise KernelFault(
            name,
            f"it is launched with work-groups of {extent.group} and was written for {shader.group}",
        )
    if layers != 1 or rows > _MOST_GROUPS:
        raise KernelFault(
            name, f"it is launched with {rows} work-groups in y and {layers} in z, which don't fit"
        )
    x = columns
    while x > _MOST_GROUPS:
        x, layers = (x + 1) // 2, layers * 2
    return (x, rows, layers), columns


def _words(name: str, shader: Shader, scalars: Sequence[int | float], columns: int) -> bytes:
    """The scalars in 4 bytes each, and after them the number of work-groups in x."""
    parts = []
    for kind, value in zip(shader.scalars, scalars, strict=True):
        if kind == "f32":
            parts.append(np.float32(value).tobytes())
            continue
        word = int(value)
        if not -(1 << 31) <= word <= _LARGEST_WORD:
            raise KernelFault(name, f"it is given {word}, which a browser cuts to 32 bits")
        parts.append(struct.pack("<I", word & _LARGEST_WORD))
    return b"".join((*parts, struct.pack("<I", columns)))


def _reason(error: Exception) -> str:
    """What was wrong and where, of the report that WebGPU gives."""
    report = str(error)
    lines = [line.strip() for line in report.splitlines() if not _DRAWN.search(line)]
    said = "; ".join(line for line in lines if line and not line.startswith(_FRAME))
    place = _PLACE.search(report)
    at = f" (line {place[1]}, column {place[2]})" if place else ""
    return f"{said or type(error).__name__}{at}"
