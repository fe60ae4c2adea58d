"""A small causal model on numpy behind the engine's interface, and ways to break it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VOCABULARY = 97
HIDDEN = 16


@dataclass(frozen=True)
class FakeCapacity:
    sequences: int = 4
    tokens: int = 256
    prefill_chunk: int = 64


class FakeModel:
    """``state = 0.7 * state + embedding[token]``; ``logits = head @ state``, plus some noise."""

    roundings: Mapping[str, FakeModel] = MappingProxyType({})

    def __init__(self, *, noise: float = 0.0, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.embedding = random.normal(size=(VOCABULARY, HIDDEN))
        self.head = random.normal(size=(VOCABULARY, HIDDEN))
        self.noise = noise
        self.random = np.random.default_rng(1)

    def step(self, state: np.ndarray, token: int) -> tuple[np.ndarray, np.ndarray]:
        state = 0.7 * state + self.embedding[token]
        logits = self.head @ state + self.noise * self.random.uniform(-1, 1, VOCABULARY)
        return state, logits.astype(np.float32)

    def logits(self, ids: list[int], calls: Sequence[int] = ()) -> np.ndarray:
        assert not calls or sum(calls) == len(ids)
        state = np.zeros(HIDDEN)
        rows = []
        for token in ids:
            state, row = self.step(state, token)
            rows.append(row)
        return np.stack(rows)


class FakeEngine:
    """Counts its calls and checks the limits that the real engine has."""

    def __init__(
        self, model: FakeModel | None = None, capacity: FakeCapacity | None = None
    ) -> None:
        self.model = model or FakeModel()
        self.capacity = capacity or FakeCapacity()
        self.states: dict[int, np.ndarray] = {}
        self.lengths: dict[int, int] = {}
        self.calls: list[str] = []
        self.batch_orders: list[tuple[int, ...]] = []
        self.chunks: list[int] = []

    def add(self, sequence: int) -> None:
        assert sequence not in self.states
        assert len(self.states) < self.capacity.sequences
        self.states[sequence] = np.zeros(HIDDEN)
        self.lengths[sequence] = 0

    def remove(self, sequence: int) -> None:
        del self.states[sequence], self.lengths[sequence]

    def prefill(self, sequence: int, tokens: Sequence[int]) -> np.ndarray:
        self.calls.append("prefill")
        self.chunks.append(len(tokens))
        return self.append(sequence, tokens)[-1]

    def decode(self, sequence: int, token: int) -> np.ndarray:
        self.calls.append("decode")
        return self.append(sequence, [token])[-1]

    def batch_prefill(
        self, sequences: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> np.ndarray:
        self.calls.append("batch_prefill")
        assert sum(map(len, tokens)) <= self.capacity.prefill_chunk
        assert len({len(part) for part in tokens}) == len(tokens) or min(map(len, tokens)) == 1
        return np.stack([self.append(s, t)[-1] for s, t in zip(sequences, tokens, strict=True)])

    def batch_decode(self, sequences: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        self.calls.append("batch_decode")
        self.batch_orders.append(tuple(sequences))
        return np.stack([self.append(s, [t])[-1] for s, t in zip(sequences, tokens, strict=True)])

    def all_logits(self, sequence: int, tokens: Sequence[int]) -> np.ndarray:
        self.calls.append("all_logits")
        return self.append(sequence, tokens)

    def append(self, sequence: int, tokens: Sequence[int]) -> np.ndarray:
        rows = []
        for token in tokens:
            self.states[sequence], row = self.model.step(self.states[sequence], token)
            rows.append(row)
        self.lengths[sequence] += len(tokens)
        assert sum(self.lengths.values()) <= self.capacity.tokens
        return np.stack(rows)


class ForgetsAtChunks(FakeEngine):
    """Loses the context when a second chunk comes."""

    def prefill(self, sequence: int, tokens: Sequence[int]) -> np.ndarray:
        self.states[sequence] = np.zeros(HIDDEN)
        return super().prefill(sequence, tokens)


class DecodesOffByOne(FakeEngine):
    """Decodes a token too many times after the first page."""

    def decode(self, sequence: int, token: int) -> np.ndarray:
        if self.lengths[sequence] > 16:
            self.append(sequence, [token])
        return super().decode(sequence, token)


class MixesBatches(FakeEngine):
    """Takes the order of the sequences for granted."""

    def batch_decode(self, sequences: Sequence[int], tokens: Sequence[int]) -> np.ndarray:
        return super().batch_decode(sorted(sequences), tokens)


class LastRowOnly(FakeEngine):
    """Gives the last row of a batch to all."""

    def batch_prefill(
        self, sequences: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> np.ndarray:
        rows = super().batch_prefill(sequences, tokens)
        return np.broadcast_to(rows[-1], rows.shape)


class Overflows(FakeEngine):
    """Gives a NaN when it decodes."""

    def decode(self, sequence: int, token: int) -> np.ndarray:
        logits = super().decode(sequence, token)
        logits[3] = np.nan
        return logits


def random_windows(*lengths: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(0, VOCABULARY, length).tolist() for length in lengths]
