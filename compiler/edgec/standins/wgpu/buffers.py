"""Buffers of a device with WebGPU, as copies of this process's memory."""

from __future__ import annotations

import ctypes
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import wgpu

if TYPE_CHECKING:
    from collections.abc import Sequence

# Buffers are bound, written and copied in units of 4 bytes.
_UNIT = 4
_STORAGE = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_SRC | wgpu.BufferUsage.COPY_DST
_UNIFORM = wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST
_DOWNLOAD = wgpu.BufferUsage.MAP_READ | wgpu.BufferUsage.COPY_DST


class Buffers:
    """Buffers that are lent, and lent again once they are given back: making them takes long.

    Args:
        device: of the package ``wgpu``.
    """

    def __init__(self, device: Any) -> None:
        self._device = device
        self._free: dict[tuple[int, int], list[Any]] = defaultdict(list)
        self._lent: list[tuple[tuple[int, int], Any]] = []

    def storage(self, address: int, size: int) -> Any:
        """A buffer for kernels with ``size`` bytes from ``address`` on."""
        data = (ctypes.c_char * size).from_address(address)
        return self._filled(_STORAGE, data, size)

    def uniform(self, data: bytes) -> Any:
        """A buffer for scalars."""
        return self._filled(_UNIFORM, data, len(data))

    def download(self, encoder: Any, sources: Sequence[Any]) -> Any:
        """A buffer that this process can read, into which ``encoder`` copies others in order."""
        target = self._lend(_DOWNLOAD, sum(source.size for source in sources))
        place = 0
        for source in sources:
            encoder.copy_buffer_to_buffer(source, 0, target, place, source.size)
            place += source.size
        return target

    def read(self, downloaded: Any, spans: Sequence[tuple[int, int]]) -> None:
        """Bring a download to where its parts belong, once its commands have run.

        Args:
            downloaded: of buffers that show this process's memory.
            spans: address and bytes of that memory, for each.
        """
        downloaded.map_sync(wgpu.MapMode.READ)
        data = downloaded.read_mapped(copy=False)
        place = 0
        for address, size in spans:
            memory = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
            memory[:] = data[place : place + size]
            place += _padded(size)
        downloaded.unmap()

    def give_back(self) -> None:
        """All that was lent may be lent again."""
        while self._lent:
            key, buffer = self._lent.pop()
            self._free[key].append(buffer)

    def clear(self) -> None:
        """Give the device's memory back."""
        self.give_back()
        for buffers in self._free.values():
            for buffer in buffers:
                buffer.destroy()
        self._free.clear()

    def _filled(self, usage: int, data: Any, size: int) -> Any:
        buffer = self._lend(usage, _padded(size))
        content = data if size == buffer.size else bytes(data).ljust(buffer.size, b"\0")
        self._device.queue.write_buffer(buffer, 0, content)
        return buffer

    def _lend(self, usage: int, size: int) -> Any:
        free = self._free[usage, size]
        buffer = free.pop() if free else self._device.create_buffer(size=size, usage=usage)
        self._lent.append(((usage, size), buffer))
        return buffer


def _padded(size: int) -> int:
    """What a buffer takes for so many bytes: whole units, and at least one."""
    return max(size + -size % _UNIT, _UNIT)
