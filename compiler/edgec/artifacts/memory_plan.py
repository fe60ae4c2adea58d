"""What a model takes in the device's memory: weights, KV cache, workspace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 1 << 20


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes at the recipe's context length or window, for one live sequence that fills it.

    Attributes:
        weights: all weight tensors.
        kv_cache: keys and values of the tokens that are kept.
        context_length: tokens.
        workspace: static storage by function; None before the library is compiled.
        decode_weights: of the weights what a decode step reads, of a table of embeddings a row;
            None before the library is compiled.
        largest_buffer: the largest that a kernel is given; None before the library is compiled.
        sliding_window: tokens that are kept of a longer sequence; None where a context ends.
        kv_cache_dtype: what keys and values are held as; None where there is no cache.
    """

    weights: int
    kv_cache: int
    context_length: int
    workspace: Mapping[str, int] | None = None
    decode_weights: int | None = None
    largest_buffer: int | None = None
    sliding_window: int | None = None
    kv_cache_dtype: str | None = None

    @property
    def largest_workspace(self) -> int:
        """Storage of the function that needs most; functions don't run at the same time."""
        return max(self.workspace.values(), default=0) if self.workspace else 0

    @property
    def total(self) -> int:
        """Weights, KV cache and the largest workspace."""
        return self.weights + self.kv_cache + self.largest_workspace

    def to_json(self) -> dict[str, Any]:
        """Plain data for the manifest."""
        return {
            "context_length": self.context_length,
            "sliding_window": self.sliding_window,
            "weights_bytes": self.weights,
            "decode_weights_bytes": self.decode_weights,
            "largest_buffer_bytes": self.largest_buffer,
            "kv_cache_bytes": self.kv_cache,
            "kv_cache_dtype": self.kv_cache_dtype,
            "workspace_bytes": None if self.workspace is None else self.largest_workspace,
            "workspace_bytes_by_function": None
            if self.workspace is None
            else dict(sorted(self.workspace.items())),
            "total_bytes": self.total,
        }
