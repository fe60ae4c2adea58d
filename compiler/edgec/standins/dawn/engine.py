"""An engine whose library, weights and KV cache are in a process of Node.js."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgec.artifacts.library_metadata import NO_CACHE
from edgec.errors import UsageError
from edgec.layouts.tensor_cache import TensorCache
from edgec.models.kv_cache import PAGE_SIZE
from edgec.runtime.embedded_images import text_ids
from edgec.runtime.forward import ForwardPasses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edgec.runtime.embedded_images import EmbeddedImage, Token
    from edgec.runtime.forward import Capacity, Logits
    from edgec.standins.dawn.worker import Worker

    Array = npt.NDArray[Any]


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


class DawnEngine(ForwardPasses):
    """A library in a process of Node.js, with the methods of :class:`edgec.runtime.engine.Engine`.

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

    embeds_images = False
    """Images are embedded on the stand-in ``wgpu``; this one is for text."""

    def __init__(
        self, worker: Worker, library: Path, weights: Path, capacity: Capacity | None = None
    ) -> None:
        TensorCache(weights)  # the worker reads the files without checks of its own
        self._worker = worker
        opened = worker.request(
            "open", wasm=str(library.absolute()), weights=str(weights.absolute())
        ).fields
        super().__init__(opened["metadata"], library, capacity)
        if self.metadata.get("kv_state_kind") == NO_CACHE:
            raise UsageError(
                "the stand-in dawn runs libraries with a KV cache, and this one has none",
                where=str(library),
                remedy="choose the stand-in wgpu",
            )
        facts = opened["facts"]
        self.device = WebDevice(
            facts["adapter"], tuple(facts["features"]), facts["kernels"], facts["pipeline_seconds"]
        )
        sizes = [self.capacity.sequences, self.capacity.tokens, self.capacity.prefill_chunk]
        worker.request("cache", sizes=[*sizes, PAGE_SIZE, int(self.window is not None)])

    def close(self) -> None:
        """End the process; it ends by itself when nothing refers to this engine."""
        self._worker.close()

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

    def embed_image(self, pixels: Array) -> EmbeddedImage:  # noqa: ARG002 - that of Engine
        """Not here.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            "the stand-in dawn runs text only", where="dawn", remedy="choose the stand-in wgpu"
        )

    def has(self, name: str) -> bool:
        """Whether the library has a function; samplers exist for some devices only."""
        return bool(self._worker.request("has", name=name).fields["found"])

    def call(self, name: str, *arguments: Array) -> tuple[Array, ...]:
        """Call a function on arrays; its results, one or several, as arrays."""
        return tuple(self._worker.request("call", *arguments, name=name).tensors)

    def function(self, name: str) -> Callable[..., tuple[Array, ...]]:
        """A function of the library, to be called on arrays."""
        return partial(self.call, name)

    def _change(self, name: str, *numbers: int) -> None:
        self._worker.request("state", name=name, numbers=[int(number) for number in numbers])

    def _forward(
        self, name: str, sequences: Sequence[int], tokens: Sequence[Sequence[Token]]
    ) -> Logits:
        flat = text_ids([token for part in tokens for token in part])
        reply = self._worker.request(
            "forward",
            flat,
            name=name,
            sequences=[int(sequence) for sequence in sequences],
            lengths=[len(part) for part in tokens],
        )
        logits: Logits = reply.tensors[0]
        return logits.reshape(-1, logits.shape[-1])
