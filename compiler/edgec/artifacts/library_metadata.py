"""The JSON that a library's ``_metadata`` function returns, as the MLC engines read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.models.window import SlidingWindow, window_fields

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.artifacts.interface import Embedding, ModelInterface
    from edgec.layouts.specs import TensorSpec
    from edgec.models.images import ImageInput
    from edgec.models.kv_cache import KVCacheSpec

NO_CACHE = "none"
"""The ``kv_state_kind`` of libraries without a KV cache."""

EXACT_ROWS = 16
EXACT_VERIFICATION = "exact_verification"
"""Whether a token has the same logits, bit for bit, alone and in a pass over up to so many tokens."""


def library_metadata(
    *,
    model_type: str,
    quantization: str,
    context_length: int,
    window: SlidingWindow | None,
    prefill_chunk: int,
    max_batch_size: int,
    cache: KVCacheSpec,
    tensors: Sequence[TensorSpec],
    workspace: Mapping[str, int],
    program: Mapping[str, Any] | None = None,
    image: ImageInput | None = None,
    exact_verification: bool = False,
) -> dict[str, Any]:
    """Every field that a consumer requires, and those whose absence it would read as garbage.

    ``sliding_window_size`` is written although it is off: the C++ engine leaves it uninitialised
    when it is missing. Where a window slides, it is ``context_window_size`` that is off.
    The cache's ``dtype`` is for people and tools: engines let the library make its cache.
    ``image`` is for edgec alone: what :meth:`edgec.runtime.engine.Engine.embed_image` takes.
    ``exact_verification``, too, is for edgec: see :data:`EXACT_VERIFICATION`.
    ``program`` becomes ``artifact``, which WebLLM alone reads; it is left out where it is None.
    """
    return {
        "model_type": model_type,
        "model_task": "chat",
        "quantization": quantization,
        **window_fields(context_length, window),
        "prefill_chunk_size": prefill_chunk,
        "max_batch_size": max_batch_size,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "seqlen_padding_factor": 1,
        "disaggregation": False,
        "kv_state_kind": "kv_cache",
        EXACT_VERIFICATION: exact_verification,
        "kv_cache": {
            "num_hidden_layers": cache.layers,
            "head_dim": cache.head_dim,
            "num_attention_heads": cache.heads,
            "num_key_value_heads": cache.kv_heads,
            "dtype": cache.kept_dtype,
        },
        "params": _params(tensors),
        "memory_usage": dict(sorted(workspace.items())),
        **({} if program is None else {"artifact": dict(program)}),
        **({} if image is None else {"image": {"size": image.size, "tokens": image.tokens}}),
    }


def generic_metadata(
    *,
    model_type: str,
    quantization: str,
    interface: ModelInterface,
    tensors: Sequence[TensorSpec],
    workspace: Mapping[str, int],
) -> dict[str, Any]:
    """The metadata of a library without a KV cache.

    The fields of text that every engine reads are there: of an embedding model, one call takes whole
    texts, so the chunk is the context. Of plain functions they say nothing; what those take stands in
    ``edgec-model.json``.
    """
    embedding = interface.embedding
    length = interface.length if embedding else 1
    task: dict[str, Any] = {"model_task": "tensors"}
    if embedding is not None:
        task = {
            "model_task": "embedding",
            "embedding_metadata": embedding_metadata(model_type, embedding),
        }
    return {
        "model_type": model_type,
        **task,
        "quantization": quantization,
        "context_window_size": length,
        "sliding_window_size": -1,
        "attention_sink_size": -1,
        "prefill_chunk_size": length,
        "max_batch_size": interface.batch,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "seqlen_padding_factor": 1,
        "disaggregation": False,
        "kv_state_kind": NO_CACHE,
        "params": _params(tensors),
        "memory_usage": dict(sorted(workspace.items())),
    }


def embedding_metadata(model_type: str, embedding: Embedding) -> dict[str, Any]:
    """What engines read of an embedding model."""
    return {
        "model_type": model_type,
        "pooling_strategy": embedding.pooling,
        "normalize": embedding.normalize,
    }


def _params(tensors: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    return [
        {
            "name": tensor.name,
            "shape": list(tensor.shape),
            "dtype": tensor.dtype,
            "preprocs": [],
            "pipeline_stages": [0],
        }
        for tensor in tensors
    ]
