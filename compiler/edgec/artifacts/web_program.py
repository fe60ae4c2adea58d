"""What ties a library for browsers to its weights: WebLLM's model manifest, and its other half.

WebLLM 0.2.86 loads a model in one of two ways. One goes by the names of the library's functions.
The other, which a page has to ask for, goes by two objects that fit together: the model manifest
beside the weights, which says what the model can do, and ``artifact`` in the library's metadata,
which says which functions do it. Both have a digest of what it can do and one of the parameters.
WebLLM passes over neither an unknown nor a missing key in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.artifacts.layout import CHAT_CONFIG
from edgec.files import digest_json
from edgec.layouts.cache_index import INDEX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgec.layouts.cache_index import TensorRecord
    from edgec.layouts.specs import TensorSpec
    from edgec.models.images import ImageInput

PLATFORM = "webgpu"
"""The platform whose libraries WebLLM runs."""
MODEL_MANIFEST = "mlc-model-manifest.json"
"""The manifest's name beside the weights; WebLLM's messages call it so."""
IMAGE_FUNCTION = "image_embed"
"""The library's function that takes images."""
PIXELS = "uint32"
"""What browsers give for a pixel's channel: WGSL has no bytes."""
_VERSION = 1
_EXECUTOR = "language_model"
_IMAGE_ADAPTER = "vision"
# The functions by the parts that they play: the same that WebLLM calls without a manifest.
_EXPORTS = {
    "embed_tokens": "embed",
    "create_kv_cache": "create_tir_paged_kv_cache",
    "prefill_embeds": "prefill",
    "decode_embeds": "decode",
}


def model_manifest(
    tensors: Iterable[TensorRecord | TensorSpec], image: ImageInput | None = None
) -> dict[str, Any]:
    """Content of ``mlc-model-manifest.json``.

    Args:
        tensors: that are in the weight folder.
        image: what stands for an image in a prompt; None if the model takes none.
    """
    return {
        "schema": "mlc.model-package",
        "schema_version": _VERSION,
        "chat_config": CHAT_CONFIG,
        "interface_id": _interface_id(image),
        "weights": {"manifest": INDEX, "parameter_schema_id": _parameter_schema_id(tensors)},
        "tasks": _tasks(image),
    }


def compiled_program(
    tensors: Iterable[TensorRecord | TensorSpec],
    *,
    dtype: str,
    largest_buffer: int,
    device_memory: int,
    image: ImageInput | None = None,
) -> dict[str, Any]:
    """The ``artifact`` of a library's metadata.

    Args:
        tensors: that the library takes as its parameters.
        dtype: of the activations, ``"float16"`` or ``"float32"``.
        largest_buffer: bytes of the largest buffer that a kernel binds.
        device_memory: bytes that the model takes of the device at its context length.
        image: see :func:`model_manifest`.
    """
    program: dict[str, Any] = {"kind": "token_generation", "exports": _EXPORTS}
    if image is not None:
        program |= {
            "adapters": {_IMAGE_ADAPTER: IMAGE_FUNCTION},
            "adapter_dtypes": {_IMAGE_ADAPTER: PIXELS},
        }
    return {
        "schema": "mlc.compiled-program",
        "schema_version": _VERSION,
        "interface_id": _interface_id(image),
        "parameter_schema_id": _parameter_schema_id(tensors),
        "programs": {_EXECUTOR: program},
        "resources": {
            "required_features": ["shader-f16"] if dtype == "float16" else [],
            "max_storage_buffer_binding_size": largest_buffer,
            "estimated_device_memory_bytes": device_memory,
        },
    }


def _tasks(image: ImageInput | None) -> dict[str, Any]:
    """What the model can do: text to text, among it images that WebLLM stretches to one size."""
    inputs: dict[str, Any] = {"text": {"processor": "tokenizer"}}
    if image is not None:
        inputs["image"] = {
            "processor": {
                "kind": "image_decode",
                "format": "rgb_u8",
                "layout": "nhwc",
                "resize": {"mode": "stretch", "height": image.size, "width": image.size},
                "num_embeddings": image.tokens,
            },
            "adapter": _IMAGE_ADAPTER,
            "prompt": {
                "prefix_token_ids": [image.start_id],
                "placeholder_token_id": image.image_id,
                "suffix_token_ids": [image.end_id],
            },
        }
    return {"chat.completions": {"executor": _EXECUTOR, "inputs": inputs, "output": "text"}}


def _interface_id(image: ImageInput | None) -> str:
    """The digest that WebLLM computes of the manifest's tasks, and compares."""
    return _digest({"tasks": _tasks(image)})


def _parameter_schema_id(tensors: Iterable[TensorRecord | TensorSpec]) -> str:
    """A digest of names, shapes and types; WebLLM only compares the two that it is given.

    The order doesn't count, because parameters are found by their names.
    """
    parameters = [
        {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype}
        for tensor in sorted(tensors, key=lambda tensor: tensor.name)
    ]
    return _digest({"parameters": parameters})


def _digest(value: dict[str, Any]) -> str:
    # The canonical JSON of edgec is WebLLM's where keys are ASCII and numbers integers.
    return f"sha256:{digest_json(value)}"
