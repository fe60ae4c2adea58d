"""How near decoding comes to the limit that memory sets, of a GPU or of this machine."""

from __future__ import annotations

import mmap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgec.runtime.limits import available_memory
from edgec.runtime.tvm_runtime import empty, function

if TYPE_CHECKING:
    from collections.abc import Callable

_BYTES = 1 << 30
_COPIES = 20
_READS = 8
_PIECE = 8 << 20
_MADV_HUGEPAGE = 14


@dataclass(frozen=True)
class Traffic:
    """What one decode step reads, and how fast the device's memory is.

    Attributes:
        weights: bytes of weights per step.
        kv_cache: bytes of keys and values per step, at the middle of what is generated.
        rate: bytes per second that the memory can do: read and written by copies of large blocks
            on a GPU, read on a processor.
        measured: ``"copy"`` or ``"read"``, how the rate was found.
    """

    weights: int
    kv_cache: int
    rate: float
    measured: Literal["copy", "read"] = "copy"

    @property
    def step(self) -> int:
        """Bytes per step."""
        return self.weights + self.kv_cache

    def share(self, steps_per_second: float) -> float:
        """The part of ``rate`` that so many steps take; 1 is the limit."""
        return self.step * steps_per_second / self.rate

    def to_json(self, steps_per_second: float) -> dict[str, Any]:
        """Plain data; bytes, and bytes per second."""
        return {
            "decode_weights_bytes": self.weights,
            "decode_kv_cache_bytes": self.kv_cache,
            f"memory_{self.measured}_bytes_per_s": float(f"{self.rate:.6g}"),
            f"decode_share_of_memory_{self.measured}": float(f"{self.share(steps_per_second):.4g}"),
        }


def copy_rate(
    device: Any,
    *,
    nbytes: int = _BYTES,
    copies: int = _COPIES,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Bytes per second, read and written, at which a device copies blocks of its memory.

    Args:
        device: TVM's handle.
        nbytes: of a block; far more than its caches hold.
        copies: that are timed, after one that isn't.
        clock: gives the time in seconds.
    """
    source = empty((nbytes,), "uint8", device)
    target = empty((nbytes,), "uint8", device)
    copy = function("runtime.TVMTensorCopyFromTo")
    copy(source, target)
    device.sync()
    begun = clock()
    for _ in range(copies):
        copy(source, target)
    device.sync()
    return 2 * nbytes * copies / max(clock() - begun, 1e-9)


def read_rate(
    threads: int,
    *,
    nbytes: int = _BYTES,
    reads: int = _READS,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Bytes per second at which this machine reads a large block in huge pages, at best.

    Args:
        threads: that read together.
        nbytes: of the block, far more than the caches hold; less where memory is scarce.
        reads: of which the fastest counts, for others may use the memory at the same time.
        clock: gives the time in seconds.
    """
    size = max(_PIECE, min(nbytes, available_memory() // 4) // _PIECE * _PIECE)
    memory = mmap.mmap(-1, size)
    with suppress(AttributeError, OSError):
        memory.madvise(_MADV_HUGEPAGE)
    # Numbers whose largest is looked for: numpy reads them as fast as the memory gives them.
    pieces = np.frombuffer(memory, np.uint64).reshape(-1, _PIECE // 8)
    shares = np.array_split(pieces, threads)

    def read(share: Any) -> None:
        for piece in share:
            piece.max()

    times = []
    with ThreadPoolExecutor(threads) as pool:
        # Pages that were never written to are all the same one.
        list(pool.map(lambda share: share.fill(1), shares))
        for _ in range(reads):
            begun = clock()
            list(pool.map(read, shares))
            times.append(clock() - begun)
    return size / max(min(times), 1e-9)
