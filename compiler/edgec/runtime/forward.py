"""Forward passes over live sequences, wherever the library runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgec.errors import UsageError
from edgec.models.window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgec.runtime.embedded_images import Token

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Capacity:
    """Sizes of the KV cache.

    Attributes:
        sequences: how many can be live at once.
        tokens: of all live sequences together; those that are kept, where windows slide.
        prefill_chunk: most tokens of one forward call.
    """

    sequences: int
    tokens: int
    prefill_chunk: int


class ForwardPasses(ABC):
    """What an engine does with sequences and tokens. Not thread-safe.

    Args:
        metadata: of the library.
        library: names it in messages.
        capacity: of the KV cache; by default what the library was compiled for, one sequence
            per batch slot, together at most the context length or one window.

    Attributes:
        metadata: of the library.
        window: that slides over every sequence; None where a context ends.
        capacity: of the KV cache.

    Raises:
        UsageError: the library was compiled for less than ``capacity``.
    """

    def __init__(
        self, metadata: Mapping[str, Any], library: Path, capacity: Capacity | None
    ) -> None:
        self.metadata = dict(metadata)
        self.window = SlidingWindow.of(self.metadata)
        chunk = self.metadata["prefill_chunk_size"]
        batch = self.metadata["max_batch_size"]
        longest = self.window.size if self.window else self.metadata["context_window_size"]
        self.capacity = capacity or Capacity(batch, longest, chunk)
        if self.capacity.prefill_chunk > chunk or self.capacity.sequences > batch:
            raise UsageError(
                f"the library was compiled for prefill chunks of {chunk} tokens and batches of"
                f" {batch}",
                where=str(library),
                remedy="ask for less, or build with a larger context.prefill_chunk or"
                " context.max_batch_size",
            )

    def add(self, sequence: int, window: SlidingWindow | None = None) -> None:
        """Start an empty sequence under a number of the caller's choice.

        Args:
            sequence: the number.
            window: that slides over it in place of the library's, if the library's does.
        """
        self._change("kv_state_add_sequence", sequence)
        self._slide(sequence, window or self.window)

    def remove(self, sequence: int) -> None:
        """Forget a sequence and free its pages."""
        self._change("kv_state_remove_sequence", sequence)

    def fork(self, parent: int, child: int) -> None:
        """Start a sequence that begins with all tokens of another.

        Where windows slide, the other has no more tokens than its window keeps always.
        """
        self._change("kv_state_fork_sequence", parent, child, -1)
        self._slide(child, self.window)

    def clear(self) -> None:
        """Forget all sequences."""
        self._change("kv_state_clear")

    def pop(self, sequence: int, tokens: int) -> None:
        """Take the last ``tokens`` positions back; not once a window has slid."""
        self._change("kv_state_popn", sequence, tokens)

    def prefill(self, sequence: int, tokens: Sequence[Token]) -> Logits:
        """Append tokens in chunks; logits ``(vocab,)`` after the last one."""
        logits = None
        for start in range(0, len(tokens), self.capacity.prefill_chunk):
            chunk = tokens[start : start + self.capacity.prefill_chunk]
            name = "prefill" if len(chunk) > 1 else "decode"
            logits = self._forward(name, [sequence], [chunk])
        assert logits is not None, "prefill needs at least one token"
        last: Logits = logits[0]
        return last

    def decode(self, sequence: int, token: int) -> Logits:
        """Append one token; logits ``(vocab,)`` after it."""
        logits: Logits = self._forward("decode", [sequence], [[token]])[0]
        return logits

    def batch_prefill(self, sequences: Sequence[int], tokens: Sequence[Sequence[Token]]) -> Logits:
        """Append to several sequences in one call; logits ``(batch, vocab)``.

        The tokens of all sequences together fit in one prefill chunk.
        """
        return self._forward("batch_prefill", sequences, tokens)

    def batch_decode(self, sequences: Sequence[int], tokens: Sequence[Token]) -> Logits:
        """Append one token to each sequence; logits ``(batch, vocab)``."""
        return self._forward("batch_decode", sequences, [[token] for token in tokens])

    def all_logits(self, sequence: int, tokens: Sequence[Token]) -> Logits:
        """Append tokens in chunks; logits ``(len(tokens), vocab)`` after every one."""
        size = self.capacity.prefill_chunk
        parts = [
            self._forward("batch_verify", [sequence], [tokens[start : start + size]])
            for start in range(0, len(tokens), size)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _slide(self, sequence: int, window: SlidingWindow | None) -> None:
        if window is not None:
            name = "attention_kv_cache_enable_sliding_window_for_seq"
            self._change(name, sequence, window.size, window.sinks)

    @abstractmethod
    def _change(self, name: str, *numbers: int) -> None:
        """Call ``vm.builtin.<name>`` of the runtime on the KV cache."""

    @abstractmethod
    def _forward(
        self, name: str, sequences: Sequence[int], tokens: Sequence[Sequence[Token]]
    ) -> Logits:
        """Run one function on new tokens of some sequences; logits ``(rows, vocab)``."""
