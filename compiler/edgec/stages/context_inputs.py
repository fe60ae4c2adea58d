"""The part of the stages' inputs that says how long a context is, and how it is held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.models.window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Mapping


def read_window(inputs: Mapping[str, Any]) -> SlidingWindow | None:
    """The sliding window in a stage's inputs; None where a context ends."""
    return SlidingWindow.of_recipe(
        inputs["context.sliding_window"], inputs["context.attention_sinks"]
    )


def read_stored(inputs: Mapping[str, Any]) -> str:
    """How the KV cache holds keys and values; see :class:`~edgec.models.kv_cache.KVCacheSpec`."""
    return str(inputs["context.kv_cache_dtype"])
