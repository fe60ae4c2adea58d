"""Call everything an engine calls, on few tokens and odd sizes, so that every kernel runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgec.verification.steps import fresh_sequences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.runtime.engine import Engine

_PREFILL = 37
_DECODES = 8
_BATCH = 3
_CHUNKS = (5, 1, 11)


def exercise(engine: Engine, tokens: Sequence[int]) -> None:
    """Prefill 37 tokens, decode 8, prefill and decode 3 ragged sequences; then sample.

    Args:
        engine: without live sequences.
        tokens: at least 64.
    """
    prompt = list(tokens[: min(_PREFILL, engine.capacity.prefill_chunk)])
    decodes = list(tokens[len(prompt) : len(prompt) + _DECODES])
    with fresh_sequences(engine, 1) as (sequence,):
        engine.prefill(sequence, prompt)
        for token in decodes:
            logits = engine.decode(sequence, token)
    with fresh_sequences(engine, 1) as (sequence,):
        start = 0
        for size in _CHUNKS:  # a prefill that finds tokens in the cache reads it in pages
            engine.prefill(sequence, prompt[start : start + size])
            start += size
        engine.all_logits(sequence, prompt[start:] or decodes)
    batch = min(_BATCH, engine.capacity.sequences)
    rows = logits[None]
    if batch > 1:
        with fresh_sequences(engine, batch) as numbers:
            parts = [prompt[row : row + 3 + 4 * row] for row in range(batch)]
            rows = engine.batch_prefill(list(numbers), parts)
            for token in decodes[:2]:
                rows = engine.batch_decode(list(numbers), [token] * batch)
    exercise_sampling(engine, rows)


def exercise_sampling(engine: Engine, logits: npt.NDArray[np.float32]) -> None:
    """Call the functions on logits ``(batch, vocab)`` that every library has."""
    rows, vocab = logits.shape
    ids = np.arange(rows, dtype=np.int32)
    places = np.repeat(ids, 2)
    tokens = np.asarray([7, 11] * rows, np.int32)
    values = np.linspace(-2, 2, 2 * rows, dtype=np.float32)
    counts = np.asarray([1, 3] * rows, np.int32)
    penalties = np.tile(np.asarray([0.5, 0.25, 1.2], np.float32), (rows, 1))
    words = -(-vocab // 32)
    mask = np.random.default_rng(0).integers(-(2**31), 2**31, (rows, words)).astype(np.int32)
    changed = engine.in_place("apply_logit_bias_inplace", logits, places, tokens, values)
    changed = engine.in_place(
        "apply_penalty_inplace", changed, ids, places, tokens, counts, penalties
    )
    engine.in_place("apply_bitmask_inplace", changed, ids, mask)
    engine.softmax(changed, list(np.linspace(0.0, 1.5, rows)))


def exercised(names: Any, seen: Any) -> list[str]:
    """Functions of a library that were never called, sorted."""
    return sorted(set(names) - set(seen))
