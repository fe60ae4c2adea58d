"""How near decoding comes to the limit that a GPU's memory sets."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.ir.load import load_tvm

if TYPE_CHECKING:
    from collections.abc import Callable

_BYTES = 1 << 30
_COPIES = 20


@dataclass(frozen=True)
class Traffic:
    """What one decode step reads, and how fast the device's memory is.

    Attributes:
        weights: bytes of weights per step.
        kv_cache: bytes of keys and values per step, at the middle of what is generated.
        copy_rate: bytes per second, read and written, at which the memory copies large blocks.
    """

    weights: int
    kv_cache: int
    copy_rate: float

    @property
    def step(self) -> int:
        """Bytes per step."""
        return self.weights + self.kv_cache

    def share(self, steps_per_second: float) -> float:
        """The part of ``copy_rate`` that so many steps take; 1 is the limit."""
        return self.step * steps_per_second / self.copy_rate

    def to_json(self, steps_per_second: float) -> dict[str, Any]:
        """Plain data; bytes, and bytes per second."""
        return {
            "decode_weights_bytes": self.weights,
            "decode_kv_cache_bytes": self.kv_cache,
            "memory_copy_bytes_per_s": float(f"{self.copy_rate:.6g}"),
            "decode_share_of_memory_copy": float(f"{self.share(steps_per_second):.4g}"),
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
    load_tvm()
    import tvm  # noqa: PLC0415 - after load_tvm

    source = tvm.runtime.empty((nbytes,), "uint8", device)
    target = tvm.runtime.empty((nbytes,), "uint8", device)
    source.copyto(target)
    device.sync()
    begun = clock()
    for _ in range(copies):
        source.copyto(target)
    device.sync()
    return 2 * nbytes * copies / max(clock() - begun, 1e-9)
