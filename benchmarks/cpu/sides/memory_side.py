"""How fast this machine's processors read memory: what no engine can exceed while it decodes."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from serve import serve

_BYTES = 1 << 30  # more than any cache
_HUGE = 2 << 20
_PASSES = 3


class Memory:
    def __init__(self, request: dict[str, Any]) -> None:
        self._read = ctypes.CDLL(request["model"]).read_all
        self._read.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._read.restype = ctypes.c_uint64
        self._threads = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads)
        self._map = mmap.mmap(-1, _BYTES + _HUGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._huge = request["huge"]
        self._map.madvise(mmap.MADV_HUGEPAGE if self._huge else mmap.MADV_NOHUGEPAGE)
        begin = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._address = -(-begin // _HUGE) * _HUGE
        ctypes.memset(self._address, 1, _BYTES)

    def facts(self) -> dict[str, Any]:
        pages = "huge" if self._huge else "4 KiB"
        settings = f"{self._threads} threads, {pages} pages"
        return {"version": "", "settings": settings, "bytes": 0, "position_bytes": 0}

    def rate(self) -> float:
        """Bytes per second of all threads together, each with its own part; the best pass."""
        part = _BYTES // self._threads // 4096 * 4096
        starts = [self._address + index * part for index in range(self._threads)]
        best = 0.0
        for _ in range(_PASSES):
            started = time.perf_counter()
            list(self._pool.map(lambda start: self._read(start, part // 8), starts))
            best = max(best, part * self._threads / (time.perf_counter() - started))
        return best

    def prefill(self, tokens: list[int]) -> float:  # noqa: ARG002 - there is no model
        """A pass, so that the first that counts isn't the first."""
        return 1 / self.rate()


if __name__ == "__main__":
    serve(Memory)
