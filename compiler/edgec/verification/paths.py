"""Prefill, decode and batches must compute the same logits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgec.verification.figures import largest_difference, rounded
from edgec.verification.steps import STEPS, calls, fresh_sequences

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgec.models.window import SlidingWindow
    from edgec.verification.interfaces import Engine, Logits

_BATCH = 3
_DECODES = 4  # more than the batch, so that each order of it comes


class Expected(Protocol):
    """Gives the logits ``(n, vocab)`` of tokens that come some at a time."""

    def __call__(self, ids: list[int], parts: Sequence[int]) -> Logits:
        """As :meth:`edgec.verification.interfaces.Model.logits`."""


def path_errors(
    engine: Engine,
    windows: Sequence[list[int]],
    expected: Expected,
    window: SlidingWindow | None = None,
) -> dict[str, float]:
    """Compare every way to compute logits with the expected ones.

    Args:
        engine: a loaded artifact.
        windows: token sequences of at least 2 tokens that fit in its context.
        expected: gives the logits of a window.
        window: that slides over the context: then the logits depend on how many tokens come at a
            time, and each way has its own.

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
    chunk = engine.capacity.prefill_chunk
    errors = dict.fromkeys([*STEPS, "batch"], 0.0)
    scale = 0.0

    def note(way: str, table: Logits, position: int, got: Logits) -> None:
        error = largest_difference(got, table[position], f"the artifact ({way})")
        errors[way] = max(errors[way], error)

    def note_batch(tables: Sequence[Logits], row: int, position: int, got: Logits) -> None:
        note("batch", tables[row], position, got)

    for start in range(0, len(windows), size):
        group = list(windows[start : start + size])
        tables = [_Tables(ids, expected, window) for ids in group]
        for ids, table in zip(group, tables, strict=True):
            for way, step in STEPS.items():
                wanted = table.of(calls(way, len(ids), chunk))
                scale = max(scale, float(np.max(np.abs(wanted))))
                step(engine, ids, partial(note, way, wanted))
        # A last group that is too small is filled with what it has: sequences may be equal.
        filled = [index % len(group) for index in range(size)]
        sequences = [group[index] for index in filled]
        ends, decodes = _ragged(engine, sequences, window)
        wanted_rows = [
            tables[index].of([end] + [1] * decodes) for index, end in zip(filled, ends, strict=True)
        ]
        _batch(engine, sequences, ends, decodes, partial(note_batch, wanted_rows))
    figures = {way: rounded(error) for way, error in errors.items()}
    return {**figures, "batch_size": size, "logit_scale": rounded(scale)}


class _Tables:
    """The expected logits of one sequence, by how many tokens come at a time if that matters."""

    def __init__(self, ids: list[int], expected: Expected, window: SlidingWindow | None) -> None:
        self._ids = ids
        self._expected = expected
        self._slides = window is not None
        self._known: dict[tuple[int, ...], Logits] = {}

    def of(self, parts: Sequence[int]) -> Logits:
        key = tuple(parts) if self._slides else ()
        if key not in self._known:
            ids = self._ids[: sum(key)] if key else self._ids
            self._known[key] = self._expected(ids, key)
        return self._known[key]


def _ragged(
    engine: Engine, sequences: Sequence[Sequence[int]], window: SlidingWindow | None
) -> tuple[list[int], int]:
    """Lengths of prompts, and how many tokens are decoded after them."""
    ends = ragged_prompts(engine, sequences, window)
    decodes = min(_DECODES, *(len(ids) - end for ids, end in zip(sequences, ends, strict=True)))
    if window is None:
        decodes = min(decodes, (engine.capacity.tokens - sum(ends)) // len(sequences))
    return ends, decodes


def ragged_prompts(
    engine: Engine, sequences: Sequence[Sequence[int]], window: SlidingWindow | None = None
) -> list[int]:
    """Lengths of prompts that fit in one prefill chunk and are as different as they can be.

    Each is at least one token and leaves at least one token of its sequence to be decoded.
    """
    count = len(sequences)
    room = engine.capacity.prefill_chunk
    if window is None:
        room = min(room, engine.capacity.tokens - count * _DECODES)
    limit = max(1, room // count)
    return [
        max(1, min(limit, len(ids) - _DECODES) * (count - row) // count)
        for row, ids in enumerate(sequences)
    ]


def _batch(
    engine: Engine,
    sequences: Sequence[Sequence[int]],
    ends: list[int],
    decodes: int,
    visit: Callable[[int, int, Logits], None],
) -> None:
    """Prefill ragged prompts in one call, then decode in an order that rotates.

    Calls ``visit(row, position, logits)`` for each sequence after each call.
    """
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
