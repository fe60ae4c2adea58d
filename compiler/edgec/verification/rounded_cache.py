"""Keys and values rounded as a KV cache of fewer bits holds them, in PyTorch.

Our CPU kernels put every key and value into the cache before any query sees it, the new ones of the same
call too, so a model of transformers computes the same with a cache that hands back what it was given,
rounded. Keys come to it rotated. See docs/decisions/0029-kv-cache-types.md.
"""

from __future__ import annotations

import importlib
from typing import Any

from edgec.models.kv_cache import INT8
from edgec.verification.rounding import rounded


def held(rows: Any, stored: str) -> Any:
    """Keys or values as a cache gives them back.

    Args:
        rows: a float32 tensor ``(..., head_dim)``.
        stored: ``"float16"``; or ``"int8"``: of each row the nearest of 255 steps, the largest
            magnitude over 127 each, ties to even; or empty: as they are.
    """
    if not stored:
        return rows
    if stored == INT8:
        return rounded(rows, rows.shape[-1])
    torch: Any = importlib.import_module("torch")
    return rows.to(getattr(torch, stored)).to(rows.dtype)


def holding_cache(stored: str) -> Any:
    """An empty cache of transformers, for one call of a model, that holds keys and values so."""
    transformers: Any = importlib.import_module("transformers")

    class HoldingCache(transformers.DynamicCache):  # type: ignore[misc]
        def update(
            self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any
        ) -> tuple[Any, Any]:
            found: tuple[Any, Any] = super().update(
                held(key_states, stored), held(value_states, stored), layer_idx, *args, **kwargs
            )
            return found

    return HoldingCache()
