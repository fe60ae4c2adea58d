"""Prefill, decode and batches must compute the same logits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edgec.verification.figures import largest_difference, rounded
from edgec.verification.steps import STEPS, fresh_sequences

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgec.verification.interfaces import Engine, Logits

_BATCH = 3
_DECODES = 4  # more than the batch, so that each order of it comes


def path_errors(
    engine: Engine,
    windows: Sequence[list[int]],
    expected: Callable[[list[int]], Logits],
) -> dict[str, float]:
    """Compare every way to compute logits with the expected ones.

    Args:
        engine: a loaded artifact.
        windows: token sequences of at least 2 tokens that fit in its context.
        expected: gives the logits ``(n, vocab)`` of a window.

    Returns:
        ``max |difference of logits|`` by way: ``all_logits``, ``prefill`` (whole),
        ``chunked_prefill`` (small uneven chunks), ``decode`` (one by one) and ``batch`` (a prefill
        of ragged sequences, then decodes in a changing order); ``batch_size``, at most 3 and at
        most what the engine was built for; and ``logit_scale``, the largest magnitude of the
        expected logits. Rounded to 6 significant digits.

    Raises:
        VerificationError: the logits have another shape or aren't finite numbers.
    """
    assert windows, "there is nothing to compare"
    size = min(_BATCH, engine.capacity.sequences, engine.capacity.prefill_chunk)
    errors = dict.fromkeys([*STEPS, "batch"], 0.0)
    scale = 0.0

    def note(way: str, table: Logits, position: int, got: Logits) -> None:
        error = largest_difference(got, table[position], f"the artifact ({way})")
        errors[way] = max(errors[way], error)

    def note_batch(tables: Sequence[Logits], row: int, position: int, got: Logits) -> None:
        note("batch", tables[row], position, got)

    for start in range(0, len(windows), size):
        group = list(windows[start : start + size])
        tables = [expected(ids) for ids in group]
        scale = max(scale, *(float(np.max(np.abs(table))) for table in tables))
        for ids, table in zip(group, tables, strict=True):
            for way, step in STEPS.items():
                step(engine, ids, partial(note, way, table))
        # A last group that is too small is filled with what it has: sequences may be equal.
        filled = [index % len(group) for index in range(size)]
        sequences = [group[index] for index in filled]
        visit = partial(note_batch, [tables[index] for index in filled])
        _batch(engine, sequences, visit)
    figures = {way: rounded(error) for way, error in errors.items()}
    return {**figures, "batch_size": size, "logit_scale": rounded(scale)}


def ragged_prompts(engine: Engine, sequences: Sequence[Sequence[int]]) -> list[int]:
    """Lengths of prompts that fit in one prefill chunk and are as different as they can be.

    Each is at least one token and leaves at least one token of its sequence to be decoded.
    """
    count = len(sequences)
    room = min(engine.capacity.prefill_chunk, engine.capacity.tokens - count * _DECODES)
    limit = max(1, room // count)
    return [
        max(1, min(limit, len(ids) - _DECODES) * (count - row) // count)
        for row, ids in enumerate(sequences)
    ]


def _batch(
    engine: Engine, sequences: Sequence[Sequence[int]], visit: Callable[[int, int, Logits], None]
) -> None:
    """Prefill ragged prompts in one call, then decode in an order that rotates.

    Calls ``visit(row, position, logits)`` for each sequence after each call.
    """
    ends = ragged_prompts(engine, sequences)
    left = [len(ids) - end for ids, end in zip(sequences, ends, strict=True)]
    room = engine.capacity.tokens - sum(ends)
    decodes = min(_DECODES, room // len(sequences), *left)
    with fresh_sequences(engine, len(sequences)) as numbers:
        order = list(numbers)[::-1]
        logits = engine.batch_prefill(order, [sequences[row][: ends[row]] for row in order])
        for row, got in zip(order, logits, strict=True):
            visit(row, ends[row] - 1, got)
        for _ in range(decodes):
            order = order[1:] + order[:1]
            logits = engine.batch_decode(order, [sequences[row][ends[row]] for row in order])
            for row, got in zip(order, logits, strict=True):
                visit(row, ends[row], got)
                ends[row] += 1
