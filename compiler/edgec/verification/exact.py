"""Where a library promises that a token has the same logits alone and among a few, see that it has."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from edgec.artifacts.library_metadata import EXACT_ROWS, EXACT_VERIFICATION
from edgec.verification.steps import fresh_sequences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.verification.interfaces import Engine

# Enough for passes that begin and end in several places of a page of the KV cache.
_TOKENS = 80
# Tokens of a pass: what kernels take at once, less and more.
_PASSES = (2, 5, EXACT_ROWS, 3, 9)


def promises_exactness(engine: Engine) -> bool:
    """Whether the library's metadata says so."""
    return bool(getattr(engine, "metadata", {}).get(EXACT_VERIFICATION))


def exact_figures(engine: Engine, tokens: Sequence[int]) -> dict[str, int]:
    """Compare passes over several tokens with single steps.

    Args:
        engine: a loaded artifact.
        tokens: a text that fits in its context, at least 2; as much of it is used as is enough.

    Returns:
        ``positions`` that were compared, and how many are ``differing`` in any bit of their logits.
    """
    ids = tokens[: min(_TOKENS, engine.capacity.tokens)]
    with fresh_sequences(engine, 1):
        engine.prefill(0, ids[:1])
        single = np.stack([engine.decode(0, token) for token in ids[1:]])
    parts, at, sizes = [], 1, cycle(_PASSES)
    with fresh_sequences(engine, 1):
        engine.prefill(0, ids[:1])
        while at < len(ids):
            size = min(next(sizes), engine.capacity.prefill_chunk)
            parts.append(engine.all_logits(0, ids[at : at + size]))
            at += size
    differing = int((np.concatenate(parts) != single).any(axis=1).sum())
    return {"positions": len(single), "differing": differing}
