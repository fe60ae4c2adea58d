"""A small language model that takes several tokens in one pass, and takes tokens back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.runtime.forward import Capacity

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

VOCAB = 12
END = VOCAB - 1


class Letters:
    """A tokenizer whose tokens are letters; the last one ends text and is silent."""

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(97 + token) for token in ids if token != END)

    def is_byte(self, token: int) -> bool:
        return False

    def is_silent(self, token: int) -> bool:
        return token == END


class TableEngine:
    """Its logits follow from the last two tokens and from what followed the last one before.

    Args:
        seed: of the model.
        sharpness: how far logits lie apart.
        copies: how much more likely it is that the token comes which followed the last one before.
    """

    def __init__(
        self,
        seed: int = 0,
        sharpness: float = 1.0,
        copies: float = 0.0,
        tokens: int = 400,
    ) -> None:
        random = np.random.default_rng(seed)
        self._table = sharpness * random.standard_normal((VOCAB, VOCAB, VOCAB))
        self._copies = copies
        self.metadata: dict[str, Any] = {
            "context_window_size": tokens,
            "exact_verification": True,
        }
        self.capacity = Capacity(1, tokens, 16)
        self.sequences: dict[int, list[int]] = {}
        self.left: list[int] = []
        self.calls: list[tuple[str, int]] = []
        self.longest = 0
        self.time = 0.0
        self.fail_at: int | None = None

    def add(self, sequence: int) -> None:
        assert not self.sequences, "there is room for one"
        self.sequences[sequence] = []

    def remove(self, sequence: int) -> None:
        self.left = self.sequences.pop(sequence)

    def pop(self, sequence: int, tokens: int) -> None:
        assert 0 < tokens < len(self.sequences[sequence])
        del self.sequences[sequence][-tokens:]

    def prefill(self, sequence: int, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        return self._append("prefill", sequence, tokens)[-1]

    def decode(self, sequence: int, token: int) -> npt.NDArray[np.float32]:
        self.time += 1.0
        return self._append("decode", sequence, [token])[-1]

    def all_logits(self, sequence: int, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        assert 1 < len(tokens) <= self.capacity.prefill_chunk
        self.time += 1.0 + 0.02 * len(tokens)
        return np.stack(self._append("pass", sequence, tokens))

    def _append(
        self, name: str, sequence: int, tokens: Sequence[int]
    ) -> list[npt.NDArray[np.float32]]:
        self.calls.append((name, len(tokens)))
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        rows = []
        held = self.sequences[sequence]
        for token in tokens:
            held.append(token)
            self.longest = max(self.longest, len(held))
            assert len(held) <= self.capacity.tokens
            rows.append(self._logits(held))
        return rows

    def _logits(self, ids: list[int]) -> npt.NDArray[np.float32]:
        logits = self._table[ids[-2] if len(ids) > 1 else 0, ids[-1]].copy()
        before = [i for i in range(len(ids) - 1) if ids[i] == ids[-1]]
        if before:
            logits[ids[before[-1] + 1]] += self._copies
        return logits.astype(np.float32)
