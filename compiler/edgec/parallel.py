"""Run many independent pieces of work on a few threads, each with scratch memory of its own.

numpy releases the interpreter's lock inside its loops, so threads are enough, as long as the
work is done in calls on blocks of many elements. Fresh memory is what such code pays for most:
every first touch of a page is a fault. A ``Workspace`` therefore keeps its arrays from one piece
of work to the next.
"""

from __future__ import annotations

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

# With more threads the interpreter's lock is the limit, and each has scratch memory of its own.
_MOST_THREADS = 16
_ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


class Workspace:
    """Named scratch arrays of one thread, allocated once and handed out again."""

    def __init__(self) -> None:
        self._buffers: dict[str, npt.NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """A C-contiguous array of undefined content, aligned to 64 bytes.

        It shares memory with every other array that was asked for under the same ``name``: asking
        again ends the life of the earlier one.
        """
        wanted = np.dtype(dtype)
        nbytes = math.prod(shape) * wanted.itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.nbytes < nbytes:
            buffer = self._buffers[name] = _aligned(nbytes)
        return buffer[:nbytes].view(wanted).reshape(shape)


def run_all(work: Callable[[T, Workspace], None], items: Iterable[T], *, threads: int) -> None:
    """Call ``work(item, workspace)`` for every item, on ``threads`` threads (at most 16).

    Raises:
        Exception: that of the first failing item in the order of ``items``, whatever the order in
            which the threads came to it; work that has not begun is dropped.
    """
    if threads <= 1:
        workspace = Workspace()
        for item in items:
            work(item, workspace)
        return
    local = threading.local()

    def prepare() -> None:
        local.workspace = Workspace()

    def run(item: T) -> None:
        work(item, local.workspace)

    with ThreadPoolExecutor(min(threads, _MOST_THREADS), initializer=prepare) as pool:
        futures = [pool.submit(run, item) for item in items]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _aligned(nbytes: int) -> npt.NDArray[np.uint8]:
    buffer = np.empty(nbytes + _ALIGNMENT, np.uint8)
    offset = -buffer.ctypes.data % _ALIGNMENT
    return buffer[offset : offset + nbytes]
