"""An engine whose library, weights and KV cache are in a process of Node.js."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgec.errors import UsageError
from edgec.layouts.tensor_cache import TensorCache
from edgec.runtime.engine import Capacity

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgec.runtime.engine import Logits
    from edgec.standins.dawn.worker import Worker

    Array = npt.NDArray[Any]

_PAGE_SIZE = 16


@dataclass(frozen=True)
class WebDevice:
    """What executes the kernels.

    Attributes:
        device_name: as the adapter describes itself.
        features: of WebGPU that were asked for and are there: ``"shader-f16"``.
        kernels: how many the library has.
        pipeline_seconds: how long it took to compile all of them.
    """

    device_name: str
    features: tuple[str, ...]
    kernels: int
    pipeline_seconds: float


class DawnEngine:
    """Forward passes over live sequences, as :class:`edgec.runtime.engine.Engine`'s.

    Args:
        worker: runs the library; it is this engine's own.
        library: a ``.wasm`` file.
        weights: their folder, in the MLC layout.
        capacity: of the KV cache; by default what the library was compiled for.

    Raises:
        ToolchainError: no adapter can run the library.
        CheckpointError: the weight folder is damaged.
        VerificationError: the library is damaged, or a kernel is no valid WGSL.
        UsageError: the library was compiled for less than ``capacity``.
    """

    def __init__(
        self, worker: Worker, library: Path, weights: Path, capacity: Capacity | None = None
    ) -> None:
        TensorCache(weights)  # the worker reads the files without checks of its own
        self._worker = worker
        opened = worker.request(
            "open", wasm=str(library.absolute()), weights=str(weights.absolute())
        ).fields
        self.metadata: dict[str, Any] = opened["metadata"]
        facts = opened["facts"]
        self.device = WebDevice(
            facts["adapter"], tuple(facts["features"]), facts["kernels"], facts["pipeline_seconds"]
        )
        chunk = self.metadata["prefill_chunk_size"]
        batch = self.metadata["max_batch_size"]
        self.capacity = capacity or Capacity(batch, self.metadata["context_window_size"], chunk)
        if self.capacity.prefill_chunk > chunk or self.capacity.sequences > batch:
            raise UsageError(
                f"the library was compiled for prefill chunks of {chunk} tokens and batches of"
                f" {batch}",
                where=str(library),
                remedy="ask for less, or build with a larger context.prefill_chunk or"
                " context.max_batch_size",
            )
        sizes = [self.capacity.sequences, self.capacity.tokens, self.capacity.prefill_chunk]
        worker.request("cache", sizes=[*sizes, _PAGE_SIZE, 0])

    def close(self) -> None:
        """End the process; it ends by itself when nothing refers to this engine."""
        self._worker.close()

    def add(self, sequence: int) -> None:
        """Start an empty sequence under a number of the caller's choice."""
        self._state("add_sequence", sequence)

    def remove(self, sequence: int) -> None:
        """Forget a sequence and free its pages."""
        self._state("remove_sequence", sequence)

    def fork(self, parent: int, child: int) -> None:
        """Start a sequence that begins with all tokens of another."""
        self._state("fork_sequence", parent, child, -1)

    def clear(self) -> None:
        """Forget all sequences."""
        self._state("clear")

    def pop(self, sequence: int, tokens: int) -> None:
        """Take the last ``tokens`` positions back."""
        self._state("popn", sequence, tokens)

    def prefill(self, sequence: int, tokens: Sequence[int]) -> Logits:
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

    def batch_prefill(self, sequences: Sequence[int], tokens: Sequence[Sequence[int]]) -> Logits:
        """Append to several sequences in one call; logits ``(batch, vocab)``."""
        return self._forward("batch_prefill", sequences, tokens)

    def batch_decode(self, sequences: Sequence[int], tokens: Sequence[int]) -> Logits:
        """Append one token to each sequence; logits ``(batch, vocab)``."""
        return self._forward("batch_decode", sequences, [[token] for token in tokens])

    def all_logits(self, sequence: int, tokens: Sequence[int]) -> Logits:
        """Append tokens in chunks; logits ``(len(tokens), vocab)`` after every one."""
        size = self.capacity.prefill_chunk
        parts = [
            self._forward("batch_verify", [sequence], [tokens[start : start + size]])
            for start in range(0, len(tokens), size)
        ]
        return np.concatenate(parts)

    def softmax(self, logits: Logits, temperature: Sequence[float]) -> Logits:
        """``softmax(logits / temperature)`` of ``(batch, vocab)``, by the library's kernel."""
        rows = np.asarray(logits, np.float32)[:, None, :]
        (result,) = self.call("softmax_with_temperature", rows, np.asarray(temperature, np.float32))
        probabilities: Logits = result[:, 0]
        return probabilities

    def in_place(self, name: str, logits: Logits, *arguments: Array) -> Logits:
        """Call ``apply_*_inplace`` on a copy of ``(batch, vocab)`` logits and return that."""
        rows = np.asarray(logits, np.float32)
        changed: Logits = self._worker.request("in_place", rows, *arguments, name=name).tensors[0]
        return changed

    def has(self, name: str) -> bool:
        """Whether the library has a function; samplers exist for some devices only."""
        return bool(self._worker.request("has", name=name).fields["found"])

    def call(self, name: str, *arguments: Array) -> tuple[Array, ...]:
        """Call a function on arrays; its results, one or several, as arrays."""
        return tuple(self._worker.request("call", *arguments, name=name).tensors)

    def function(self, name: str) -> Callable[..., tuple[Array, ...]]:
        """A function of the library, to be called on arrays."""
        return partial(self.call, name)

    def _state(self, name: str, *numbers: int) -> None:
        self._worker.request("state", name=name, numbers=[int(number) for number in numbers])

    def _forward(
        self, name: str, sequences: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> Logits:
        """Run one function on new tokens of some sequences; logits ``(rows, vocab)``."""
        flat = np.asarray([token for part in tokens for token in part], np.int32)
        reply = self._worker.request(
            "forward",
            flat,
            name=name,
            sequences=[int(sequence) for sequence in sequences],
            lengths=[len(part) for part in tokens],
        )
        logits: Logits = reply.tensors[0]
        return logits.reshape(-1, logits.shape[-1])
