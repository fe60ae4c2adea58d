"""A loaded model library with its weights and KV cache.

It calls the same functions with the same arguments as the MLC engines do, so that what works
here works there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgec.errors import UsageError
from edgec.ir.load import load_tvm
from edgec.models.kv_cache import PAGE_SIZE
from edgec.models.window import SlidingWindow

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

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


class Engine:
    """Forward passes over live sequences. Not thread-safe.

    Args:
        machine: the virtual machine of a loaded library.
        device: the TVM device that it runs on; weights are copied there if they aren't yet.
        library: names the library in messages.
        weights: by name, as the library's metadata names them.
        capacity: of the KV cache; by default what the library was compiled for, one sequence
            per batch slot, together at most the context length or one window.

    Attributes:
        metadata: of the library.
        window: that slides over every sequence; None where a context ends.
        capacity: of the KV cache.
    """

    def __init__(
        self,
        machine: Any,
        device: Any,
        library: Path,
        weights: Any,
        capacity: Capacity | None = None,
    ) -> None:
        load_tvm()
        import tvm  # noqa: PLC0415 - loading takes a second and only engines need it

        self._tvm = tvm
        self._vm = machine
        self.device = device
        self.metadata: dict[str, Any] = json.loads(str(self._vm["_metadata"]()))
        self._params = [
            self._on_device(weights.tensor(item["name"])) for item in self.metadata["params"]
        ]
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
        self._state = {
            name: tvm.get_global_func(f"vm.builtin.{name}")
            for name in (
                "kv_state_add_sequence",
                "kv_state_fork_sequence",
                "kv_state_remove_sequence",
                "kv_state_begin_forward",
                "kv_state_end_forward",
                "kv_state_popn",
                "kv_state_clear",
                "attention_kv_cache_enable_sliding_window_for_seq",
                "reshape",
            )
        }
        shape = tvm.runtime.ShapeTuple
        self._cache = self._vm["create_tir_paged_kv_cache"](
            shape([self.capacity.sequences]),
            shape([self.capacity.tokens]),
            shape([self.capacity.prefill_chunk]),
            shape([PAGE_SIZE]),
            shape([int(self.window is not None)]),
        )

    def add(self, sequence: int, window: SlidingWindow | None = None) -> None:
        """Start an empty sequence under a number of the caller's choice.

        Args:
            sequence: the number.
            window: that slides over it in place of the library's, if the library's does.
        """
        self._state["kv_state_add_sequence"](self._cache, sequence)
        self._slide(sequence, window or self.window)

    def remove(self, sequence: int) -> None:
        """Forget a sequence and free its pages."""
        self._state["kv_state_remove_sequence"](self._cache, sequence)

    def fork(self, parent: int, child: int) -> None:
        """Start a sequence that begins with all tokens of another.

        Where windows slide, the other has no more tokens than its window keeps always.
        """
        self._state["kv_state_fork_sequence"](self._cache, parent, child, -1)
        self._slide(child, self.window)

    def clear(self) -> None:
        """Forget all sequences."""
        self._state["kv_state_clear"](self._cache)

    def pop(self, sequence: int, tokens: int) -> None:
        """Take the last ``tokens`` positions back; not once a window has slid."""
        self._state["kv_state_popn"](self._cache, sequence, tokens)

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
        """Append to several sequences in one call; logits ``(batch, vocab)``.

        The tokens of all sequences together fit in one prefill chunk.
        """
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
        rows = self._tensor(np.ascontiguousarray(logits, np.float32)[:, None, :])
        scale = self._tensor(np.asarray(temperature, np.float32))
        result: Logits = self._vm["softmax_with_temperature"](rows, scale).numpy()[:, 0]
        return result

    def in_place(self, name: str, logits: Logits, *arguments: npt.NDArray[Any]) -> Logits:
        """Call ``apply_*_inplace`` on a copy of ``(batch, vocab)`` logits and return that."""
        tensor = self._tensor(np.ascontiguousarray(logits, np.float32))
        function = self._vm.module.get_function(name, query_imports=True)
        function(tensor, *(self._tensor(argument) for argument in arguments))
        changed: Logits = tensor.numpy()
        return changed

    def has(self, name: str) -> bool:
        """Whether the library has a function; samplers exist for some devices only."""
        try:
            self._vm[name]
        except Exception:  # noqa: BLE001 - TVM raises AttributeError or its own errors
            return False
        return True

    def call(self, name: str, *arguments: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """Call a function on arrays; its results, one or several, as arrays."""
        result = self._vm[name](*(self._tensor(argument) for argument in arguments))
        several = [result] if hasattr(result, "numpy") else list(result)
        return tuple(item.numpy() for item in several)

    def function(self, name: str) -> Any:
        """A function of the library, for what this class has no method for."""
        return self._vm[name]

    def _slide(self, sequence: int, window: SlidingWindow | None) -> None:
        if window is not None:
            enable = self._state["attention_kv_cache_enable_sliding_window_for_seq"]
            enable(self._cache, sequence, window.size, window.sinks)

    def _forward(
        self, name: str, sequences: Sequence[int], tokens: Sequence[Sequence[int]]
    ) -> Logits:
        """Run one function on new tokens of some sequences; logits ``(rows, vocab)``."""
        shape = self._tvm.runtime.ShapeTuple
        flat = [token for part in tokens for token in part]
        embedded = self._vm["embed"](self._tensor(np.asarray(flat, np.int32)), self._params)
        width = embedded.shape[-1]
        batched = name == "batch_decode"
        outer = [len(flat), 1] if batched else [1, len(flat)]
        states = self._state["reshape"](embedded, shape([*outer, width]))
        arguments = [states]
        if name == "batch_prefill":
            ends = np.cumsum([len(part) for part in tokens]) - 1
            arguments.append(self._tensor(ends.astype(np.int32)))
        self._state["kv_state_begin_forward"](
            self._cache, shape(list(sequences)), shape([len(part) for part in tokens])
        )
        logits, _ = self._vm[name](*arguments, self._cache, self._params)
        self._state["kv_state_end_forward"](self._cache)
        result: Logits = logits.numpy().reshape(-1, logits.shape[-1])
        return result

    def _tensor(self, array: npt.NDArray[Any]) -> Any:
        return self._tvm.runtime.tensor(array, self.device)

    def _on_device(self, tensor: Any) -> Any:
        return tensor if tensor.device == self.device else tensor.copyto(self.device)
