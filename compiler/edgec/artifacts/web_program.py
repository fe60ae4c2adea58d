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

PLATFORM = "webgpu"
"""The platform whose libraries WebLLM runs."""
MODEL_MANIFEST = "mlc-model-manifest.json"
"""The manifest's name beside the weights; WebLLM's messages call it so."""
_VERSION = 1
_EXECUTOR = "language_model"
_TASKS = {
    "chat.completions": {
        "executor": _EXECUTOR,
        "inputs": {"text": {"processor": "tokenizer"}},
        "output": "text",
    }
}
# The functions by the parts that they play: the same that WebLLM calls without a manifest.
_EXPORTS = {
    "embed_tokens": "embed",
    "create_kv_cache": "create_tir_paged_kv_cache",
    "prefill_embeds": "prefill",
    "decode_embeds": "decode",
}


def model_manifest(tensors: Iterable[TensorRecord | TensorSpec]) -> dict[str, Any]:
    """Content of ``mlc-model-manifest.json``.

    Args:
        tensors: that are in the weight folder.
    """
    return {
        "schema": "mlc.model-package",
        "schema_version": _VERSION,
        "chat_config": CHAT_CONFIG,
        "interface_id": _interface_id(),
        "weights": {"manifest": INDEX, "parameter_schema_id": _parameter_schema_id(tensors)},
        "tasks": _TASKS,
    }


def compiled_program(
    tensors: Iterable[TensorRecord | TensorSpec],
    *,
    dtype: str,
    largest_buffer: int,
    device_memory: int,
) -> dict[str, Any]:
    """The ``artifact`` of a library's metadata.

    Args:
        tensors: that the library takes as its parameters.
        dtype: of the activations, ``"float16"`` or ``"float32"``.
        largest_buffer: bytes of the largest buffer that a kernel binds.
        device_memory: bytes that the model takes of the device at its context length.
    """
    return {
        "schema": "mlc.compiled-program",
        "schema_version": _VERSION,
        "interface_id": _interface_id(),
        "parameter_schema_id": _parameter_schema_id(tensors),
        "programs": {_EXECUTOR: {"kind": "token_generation", "exports": _EXPORTS}},
        "resources": {
            "required_features": ["shader-f16"] if dtype == "float16" else [],
            "max_storage_buffer_binding_size": largest_buffer,
            "estimated_device_memory_bytes": device_memory,
        },
    }


def _interface_id() -> str:
    """The digest that WebLLM computes of the manifest's tasks, and compares."""
    return _digest({"tasks": _TASKS})


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
