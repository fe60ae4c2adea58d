"""The ways to bring one sequence through an engine.

Each function starts an empty sequence, appends all tokens, calls ``visit(position, logits)`` with
the logits ``(vocab,)`` that follow the token at ``position``, for every position at which this way
gives any, and forgets the sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from itertools import cycle, repeat
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from edgec.verification.interfaces import Logits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edgec.verification.interfaces import Engine

Visit = Callable[[int, Logits], None]

# Sizes of the small chunks: a single token, less than, more than and twice the 16 tokens of a page
# of the KV cache, so that chunks begin and end everywhere within a page.
_CHUNKS = (5, 1, 17, 2, 31)


@contextmanager
def fresh_sequences(engine: Engine, count: int) -> Iterator[range]:
    """Empty sequences ``0`` to ``count - 1``, which are forgotten at the end."""
    numbers = range(count)
    added: list[int] = []
    try:
        for number in numbers:
            engine.add(number)
            added.append(number)
        yield numbers
    finally:
        for number in added:
            engine.remove(number)


def calls(way: str, count: int, chunk: int) -> list[int]:
    """How many of ``count`` tokens come at a time.

    Args:
        way: a name in ``STEPS``.
        count: at least 1.
        chunk: the engine's ``capacity.prefill_chunk``.
    """
    if way == "decode":
        return [1] * count
    sizes = cycle(_CHUNKS) if way == "chunked_prefill" else repeat(chunk)
    parts: list[int] = []
    while count:
        parts.append(min(next(sizes), chunk, count))
        count -= parts[-1]
    return parts


def all_logits(engine: Engine, tokens: Sequence[int], parts: Sequence[int] = ()) -> Logits:
    """The logits ``(n, vocab)`` of every position, from an empty context.

    Args:
        engine: an artifact.
        tokens: at least one.
        parts: how many of them come at a time; by default as many as the engine takes.
    """
    with fresh_sequences(engine, 1):
        if not parts:
            return engine.all_logits(0, tokens)
        found, start = [], 0
        for size in parts:
            found.append(engine.all_logits(0, tokens[start : start + size]))
            start += size
        return np.concatenate(found)


def whole_prefill(engine: Engine, tokens: Sequence[int], visit: Visit) -> None:
    """In chunks as large as the engine takes; visits the last position."""
    with fresh_sequences(engine, 1):
        visit(len(tokens) - 1, engine.prefill(0, tokens))


def chunked_prefill(engine: Engine, tokens: Sequence[int], visit: Visit) -> None:
    """In small uneven chunks; visits the last position of each."""
    with fresh_sequences(engine, 1):
        start = 0
        for size in calls("chunked_prefill", len(tokens), engine.capacity.prefill_chunk):
            chunk = tokens[start : start + size]
            start += size
            visit(start - 1, engine.prefill(0, chunk))


def single_decodes(engine: Engine, tokens: Sequence[int], visit: Visit) -> None:
    """One token at a time; visits every position."""
    with fresh_sequences(engine, 1):
        for position, token in enumerate(tokens):
            visit(position, engine.decode(0, token))


def every_position(engine: Engine, tokens: Sequence[int], visit: Visit) -> None:
    """In one call that gives all logits; visits every position."""
    for position, logits in enumerate(all_logits(engine, tokens)):
        visit(position, logits)


STEPS: Mapping[str, Callable[[Engine, Sequence[int], Visit], None]] = MappingProxyType(
    {
        "all_logits": every_position,
        "prefill": whole_prefill,
        "chunked_prefill": chunked_prefill,
        "decode": single_decodes,
    }
)
"""The ways by the names that reports give them."""
