"""Call everything a model has, on few tokens and odd sizes, so that every kernel runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.models.window import SlidingWindow
from edgec.runtime.pictures import image_size
from edgec.verification.images import drawn_picture, image_tokens
from edgec.verification.steps import fresh_sequences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.runtime.engine import Engine
    from edgec.verification.interfaces import Logits

_PREFILL = 37
_DECODES = 2
_BATCH = 3
_CHUNKS = (5, 1, 11)
_SLIDES, _SLIDING = 13, 0  # tokens of a prefill, and the sequence's number
_FORKED = 3  # tokens: a part of a page, which a fork has to copy


def exercise(engine: Engine, tokens: Sequence[int], *, longest_image: int = 0) -> Logits:
    """Prefill 37 tokens and decode; in chunks; forked; sliding; 3 ragged sequences at once.

    Args:
        engine: without live sequences.
        tokens: to run it on; with fewer than 40 the prefill is shorter.
        longest_image: also an image with tokens behind it, of a library that takes images, if one
            has at most so many tokens.

    Returns:
        Logits ``(batch, vocab)`` of the last step.
    """
    longest = min(_PREFILL, engine.capacity.prefill_chunk, len(tokens) - _DECODES)
    prompt, more = list(tokens[:longest]), list(tokens[longest : longest + _DECODES])
    _decode(engine, prompt, more)
    _chunks(engine, prompt)
    if 0 < image_tokens(engine) <= longest_image:
        _image(engine, prompt)
    if engine.window is not None:
        _slide(engine, prompt, more)
    forked = min(_FORKED, engine.window.sinks) if engine.window else _FORKED
    if engine.capacity.sequences > 1 and forked:
        _fork(engine, prompt[:forked], more)
    return _batch(engine, prompt, more)


def _decode(engine: Engine, prompt: list[int], more: list[int]) -> None:
    with fresh_sequences(engine, 1) as (sequence,):
        engine.prefill(sequence, prompt)
        for token in more:
            engine.decode(sequence, token)


def _chunks(engine: Engine, prompt: list[int]) -> None:
    """A prefill that finds tokens in the cache reads them in pages."""
    with fresh_sequences(engine, 1) as (sequence,):
        start = 0
        for size in _CHUNKS:
            chunk = prompt[start : start + size]
            if chunk:
                engine.prefill(sequence, chunk)
            start += size
        if prompt[start:]:
            engine.all_logits(sequence, prompt[start:])


def _image(engine: Engine, prompt: list[int]) -> None:
    image = engine.embed_image(drawn_picture(image_size(engine.metadata)))
    with fresh_sequences(engine, 1) as (sequence,):
        engine.prefill(sequence, [*image.tokens(), *prompt[:2]])


def _slide(engine: Engine, prompt: list[int], more: list[int]) -> None:
    """Windows that are shorter than the prompt, with first tokens to the middle of a page or none.

    So the first and the last page are filled in part, and the kernels meet pages out of order.
    """
    for window in (SlidingWindow(21, 3), SlidingWindow(20, 0), SlidingWindow(36, 18)):
        engine.add(_SLIDING, window)
        try:
            for start in range(0, len(prompt), _SLIDES):
                engine.prefill(_SLIDING, prompt[start : start + _SLIDES])
            for token in more:
                engine.decode(_SLIDING, token)
        finally:
            engine.remove(_SLIDING)


def _fork(engine: Engine, prompt: list[int], more: list[int]) -> None:
    with fresh_sequences(engine, 1) as (sequence,):
        engine.prefill(sequence, prompt)
        engine.fork(sequence, sequence + 1)
        try:
            engine.decode(sequence + 1, more[0])
        finally:
            engine.remove(sequence + 1)


def _batch(engine: Engine, prompt: list[int], more: list[int]) -> Logits:
    count = min(_BATCH, engine.capacity.sequences)
    with fresh_sequences(engine, count) as numbers:
        # As many tokens as a prefill takes, with three sequences 3, 7 and 11.
        share = min(1.0, engine.capacity.prefill_chunk / sum(3 + 4 * row for row in range(count)))
        sizes = [max(1, int(share * (3 + 4 * row))) for row in range(count)]
        parts = [prompt[row : row + size] or prompt[:1] for row, size in enumerate(sizes)]
        logits = engine.batch_prefill(list(numbers), parts)
        for token in more:
            logits = engine.batch_decode(list(numbers), [token] * count)
    return logits
