"""A loaded model library with its weights and KV cache.

It calls the same functions with the same arguments as the MLC engines do, so that what works
here works there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgec.artifacts.library_metadata import NO_CACHE
from edgec.models.kv_cache import PAGE_SIZE
from edgec.runtime.embedded_images import (
    EmbeddedImage,
    ImageToken,
    Token,
    text_ids,
    with_images,
)
from edgec.runtime.forward import Capacity, ForwardPasses, Logits
from edgec.runtime.tvm_runtime import (
    array_of,
    function,
    is_tensor,
    numbers_of,
    on_device,
    shape,
    tensor,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


class Engine(ForwardPasses):
    """A library in TVM's virtual machine. Not thread-safe.

    Args:
        machine: the virtual machine of a loaded library.
        device: the TVM device that it runs on; weights are copied there if they aren't yet.
        library: names the library in messages.
        weights: by name, as the library's metadata names them.
        capacity: of the KV cache; see :class:`~edgec.runtime.forward.ForwardPasses`.
    """

    embeds_images = True
    """Whether :meth:`embed_image` works, of a library that takes images."""

    def __init__(
        self,
        machine: Any,
        device: Any,
        library: Path,
        weights: Any,
        capacity: Capacity | None = None,
    ) -> None:
        self._vm = machine
        self.device = device
        self._builtins: dict[str, Any] = {}
        super().__init__(json.loads(str(self._vm["_metadata"]())), library, capacity)
        self._params = [
            on_device(weights.tensor(item["name"]), device) for item in self.metadata["params"]
        ]
        self._cache = self._create_cache() if self.has_cache else None

    @property
    def has_cache(self) -> bool:
        """Whether the library is a decoder's; others are functions to :meth:`run`."""
        return bool(self.metadata.get("kv_state_kind") != NO_CACHE)

    def run(self, name: str, *arguments: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """Call a function that takes arrays and the weights; its results as arrays."""
        tensors = [self._tensor(argument) for argument in arguments]
        return _arrays(self._vm[name](*tensors, self._params))

    def softmax(self, logits: Logits, temperature: Sequence[float]) -> Logits:
        """``softmax(logits / temperature)`` of ``(batch, vocab)``, by the library's kernel."""
        rows = self._tensor(np.ascontiguousarray(logits, np.float32)[:, None, :])
        scale = self._tensor(np.asarray(temperature, np.float32))
        result: Logits = array_of(self._vm["softmax_with_temperature"](rows, scale))[:, 0]
        return result

    def in_place(self, name: str, logits: Logits, *arguments: npt.NDArray[Any]) -> Logits:
        """Call ``apply_*_inplace`` on a copy of ``(batch, vocab)`` logits and return that."""
        rows = self._tensor(np.ascontiguousarray(logits, np.float32))
        kernel = self._vm.module.get_function(name, query_imports=True)
        kernel(rows, *(self._tensor(argument) for argument in arguments))
        changed: Logits = array_of(rows)
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
        return _arrays(self._vm[name](*(self._tensor(argument) for argument in arguments)))

    def embed_image(self, pixels: npt.NDArray[np.uint8]) -> EmbeddedImage:
        """The embeddings of an image ``(size, size, 3)`` of the size that the library takes."""
        image = np.ascontiguousarray(pixels[None])
        if "artifact" in self.metadata:
            # A library for browsers, which have no bytes on the device and give no sizes.
            rows = self._vm["image_embed"](self._tensor(image.astype(np.uint32)), self._params)
        else:
            unused = [shape([0])] * 4
            rows = self._vm["image_embed"](self._tensor(image), *unused, self._params)
        return EmbeddedImage(array_of(rows))

    def function(self, name: str) -> Any:
        """A function of the library, for what this class has no method for."""
        return self._vm[name]

    def watch(self, observer: Callable[..., None]) -> None:
        """Have every call of the virtual machine told, from now on; it can't be undone.

        Args:
            observer: is called before and after each with the function, its name, whether it is
                before, the result, and the arguments.
        """
        self._vm.set_instrument(observer)

    def _create_cache(self) -> Any:
        return self._vm["create_tir_paged_kv_cache"](
            shape([self.capacity.sequences]),
            shape([self.capacity.tokens]),
            shape([self.capacity.prefill_chunk]),
            shape([PAGE_SIZE]),
            shape([int(self.window is not None)]),
        )

    def _change(self, name: str, *numbers: int) -> None:
        self._builtin(name)(self._cache, *numbers)

    def _builtin(self, name: str) -> Any:
        if name not in self._builtins:
            self._builtins[name] = function(f"vm.builtin.{name}")
        return self._builtins[name]

    def _forward(
        self, name: str, sequences: Sequence[int], tokens: Sequence[Sequence[Token]]
    ) -> Logits:
        flat = [token for part in tokens for token in part]
        embedded = self._vm["embed"](self._tensor(text_ids(flat)), self._params)
        if any(isinstance(token, ImageToken) for token in flat):
            embedded = self._tensor(with_images(array_of(embedded), flat))
        width = embedded.shape[-1]
        batched = name == "batch_decode"
        outer = [len(flat), 1] if batched else [1, len(flat)]
        states = self._builtin("reshape")(embedded, shape([*outer, width]))
        arguments = [states]
        if name == "batch_prefill":
            ends = np.cumsum([len(part) for part in tokens]) - 1
            arguments.append(self._tensor(ends.astype(np.int32)))
        self._builtin("kv_state_begin_forward")(
            self._cache, shape(list(sequences)), shape([len(part) for part in tokens])
        )
        logits, _ = self._vm[name](*arguments, self._cache, self._params)
        self._change("kv_state_end_forward")
        result: Logits = numbers_of(logits).reshape(-1, logits.shape[-1])
        return result

    def _tensor(self, array: npt.NDArray[Any]) -> Any:
        return tensor(array, self.device)


def _arrays(result: Any) -> tuple[npt.NDArray[Any], ...]:
    return tuple(array_of(item) for item in ([result] if is_tensor(result) else result))
