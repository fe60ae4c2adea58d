"""What is compared: a loaded artifact, and a model that gives logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Logits = npt.NDArray[np.float32]
"""Float32, ``(vocab,)`` of one position or ``(n, vocab)``."""


class Capacity(Protocol):
    """Sizes of an engine's KV cache."""

    @property
    def sequences(self) -> int:
        """How many can be live at once."""

    @property
    def tokens(self) -> int:
        """Of all live sequences together."""

    @property
    def prefill_chunk(self) -> int:
        """Most tokens of one call."""


class Engine(Protocol):
    """A loaded artifact, as ``edgec.runtime.engine.Engine`` is."""

    @property
    def capacity(self) -> Capacity:
        """Sizes of the KV cache."""

    def add(self, sequence: int) -> None:
        """Start an empty sequence."""

    def remove(self, sequence: int) -> None:
        """Forget a sequence."""

    def prefill(self, sequence: int, tokens: Sequence[int]) -> Logits:
        """Append tokens; logits ``(vocab,)`` after the last one."""

    def decode(self, sequence: int, token: int) -> Logits:
        """Append one token; logits ``(vocab,)`` after it."""

    def batch_prefill(self, sequences: Sequence[int], tokens: Sequence[Sequence[int]]) -> Logits:
        """Append to several sequences, one chunk together; logits ``(batch, vocab)``."""

    def batch_decode(self, sequences: Sequence[int], tokens: Sequence[int]) -> Logits:
        """Append one token to each sequence; logits ``(batch, vocab)``."""

    def all_logits(self, sequence: int, tokens: Sequence[int]) -> Logits:
        """Append tokens; logits ``(len(tokens), vocab)`` after every one."""


class Model(Protocol):
    """A model without state."""

    def logits(self, ids: list[int], calls: Sequence[int] = ()) -> Logits:
        """Logits ``(n, vocab)`` after each of ``n`` tokens from an empty context.

        ``calls``: how many of them come at a time, which matters where a window slides; by default
        all at once.
        """
