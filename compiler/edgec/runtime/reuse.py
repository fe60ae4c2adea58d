"""One sequence that outlives a generation, so that a conversation is prefilled once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from edgec.models.window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from edgec.runtime.embedded_images import Token
    from edgec.runtime.forward import Capacity

_SEQUENCE = 0


class ReusableEngine(Protocol):
    """An engine that takes tokens back: :class:`edgec.runtime.engine.Engine`."""

    metadata: dict[str, Any]
    capacity: Capacity

    def add(self, sequence: int) -> None:
        """Start an empty sequence."""

    def remove(self, sequence: int) -> None:
        """Forget a sequence."""

    def pop(self, sequence: int, tokens: int) -> None:
        """Take the last ``tokens`` positions back."""

    def prefill(self, sequence: int, tokens: Sequence[Token]) -> npt.NDArray[np.float32]:
        """Append tokens; logits ``(vocab,)`` after the last one."""

    def decode(self, sequence: int, token: int) -> npt.NDArray[np.float32]:
        """Append one token; logits ``(vocab,)`` after it."""

    def all_logits(self, sequence: int, tokens: Sequence[Token]) -> npt.NDArray[np.float32]:
        """Append tokens; logits ``(len(tokens), vocab)`` after every one."""


class ReusedSequence:
    """Looks like an engine to ``generate``, and keeps what was computed from one call to the next.

    A prompt is compared with the tokens that are in the KV cache: those that it begins with stay,
    others are taken back, and only the rest is prefilled.

    Args:
        engine: with room for one sequence, and none alive.

    Attributes:
        tokens: what is in the KV cache.
        prefilled: how many tokens of the last prompt had to be computed.
    """

    def __init__(self, engine: ReusableEngine) -> None:
        self._engine = engine
        self._alive = False
        self.metadata = engine.metadata
        self.capacity = engine.capacity
        self._window = SlidingWindow.of(engine.metadata)
        self.tokens: list[Token] = []
        self.prefilled = 0

    def add(self, sequence: int) -> None:
        """Nothing: the sequence is there as soon as it is needed, under a number of its own."""

    def remove(self, sequence: int) -> None:
        """Nothing: the next prompt may begin with what is there."""

    def clear(self) -> None:
        """Forget everything."""
        self.tokens = []
        if self._alive:
            self._alive = False
            self._engine.remove(_SEQUENCE)

    def prefill(self, sequence: int, tokens: Sequence[Token]) -> npt.NDArray[np.float32]:  # noqa: ARG002 - there is one sequence
        """Make the cache hold ``tokens``; logits ``(vocab,)`` after the last one."""
        # The last token is computed in any case: its logits are wanted.
        kept = min(_common_prefix(self.tokens, tokens), len(tokens) - 1)
        if not kept or (kept < len(self.tokens) and self._has_slid):
            kept = 0
            self.clear()
        elif kept < len(self.tokens):
            self._take_back(len(self.tokens) - kept)
        self.prefilled = len(tokens) - kept
        return self._append(tokens[kept:])

    def decode(self, sequence: int, token: int) -> npt.NDArray[np.float32]:  # noqa: ARG002 - there is one sequence
        """Append one token; logits ``(vocab,)`` after it."""
        return self._append([token])

    def all_logits(self, sequence: int, tokens: Sequence[Token]) -> npt.NDArray[np.float32]:  # noqa: ARG002 - there is one sequence
        """Append tokens; logits ``(len(tokens), vocab)`` after every one."""
        known, self.tokens = self.tokens, []
        logits = self._engine.all_logits(_SEQUENCE, tokens)
        self.tokens = [*known, *tokens]
        return logits

    def pop(self, sequence: int, tokens: int) -> None:  # noqa: ARG002 - there is one sequence
        """Take the last ``tokens`` positions back."""
        self._take_back(tokens)

    @property
    def _has_slid(self) -> bool:
        """Whether tokens have left the cache: then none can be taken back."""
        return self._window is not None and len(self.tokens) > self._window.size

    # While the engine works, ``tokens`` is empty: after an error or an interrupt nobody knows what
    # the cache holds, and the next prompt begins anew.

    def _append(self, new: Sequence[Token]) -> npt.NDArray[np.float32]:
        known, self.tokens = self.tokens, []
        if not self._alive:
            self._engine.add(_SEQUENCE)
            self._alive = True
        if len(new) == 1 and isinstance(new[0], int):
            logits = self._engine.decode(_SEQUENCE, new[0])
        else:
            logits = self._engine.prefill(_SEQUENCE, new)
        known.extend(new)
        self.tokens = known
        return logits

    def _take_back(self, count: int) -> None:
        known, self.tokens = self.tokens, []
        self._engine.pop(_SEQUENCE, count)
        self.tokens = known[:-count]


def _common_prefix(first: Sequence[Token], second: Sequence[Token]) -> int:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
