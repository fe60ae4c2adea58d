"""How fast this machine's cores are: less while other guests of its host use the same cores."""

from __future__ import annotations

import ctypes
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from serve import serve

_ROUNDS = 1 << 25
_ADDITIONS = 8
"""In a round."""
_PASSES = 3


class Cores:
    def __init__(self, request: dict[str, Any]) -> None:
        self._add = ctypes.CDLL(request["model"]).add_all
        self._add.argtypes = [ctypes.c_uint64]
        self._add.restype = ctypes.c_uint64
        self._threads = len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._threads)

    def facts(self) -> dict[str, Any]:
        settings = f"{self._threads} threads"
        return {"version": "", "settings": settings, "bytes": 0, "position_bytes": 0}

    def rate(self) -> float:
        """Additions per second of all threads together; the mean of some passes."""
        started = time.perf_counter()
        for _ in range(_PASSES):
            list(self._pool.map(self._add, [_ROUNDS] * self._threads))
        return _PASSES * self._threads * _ADDITIONS * _ROUNDS / (time.perf_counter() - started)

    def prefill(self, tokens: list[int]) -> float:  # noqa: ARG002 - there is no model
        """A pass, so that the first that counts isn't the first."""
        return 1 / self.rate()


if __name__ == "__main__":
    serve(Cores)
