"""Stages 4 to 6: lower the module for one target, schedule its kernels, emit the library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.artifacts import web_program
from edgec.artifacts.library_metadata import library_metadata
from edgec.artifacts.memory_plan import MemoryPlan
from edgec.errors import UnsupportedModelError
from edgec.ir.load import load_tvm
from edgec.layouts.specs import decode_bytes, nbytes, weight_bytes
from edgec.models.images import ImageInput
from edgec.models.kv_cache import KVCacheSpec
from edgec.stages.context_inputs import read_stored, read_window
from edgec.stages.lowering import Imported, Lowered, lower, open_imported, write_library

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.layouts.specs import TensorSpec
    from edgec.scheduling.device_limits import KernelNeeds
    from edgec.stages.context import StageContext


def run(context: StageContext) -> None:
    """See the module's docstring. Writes the library and ``library.json``."""
    load_tvm()
    from edgec.passes import pipeline  # noqa: PLC0415 - after load_tvm
    from edgec.passes.reference_kernels import reference_kernels  # noqa: PLC0415

    inputs = context.inputs
    imported = open_imported(context)
    facts, stored = imported.facts, imported.stored
    cache = _cache(inputs, facts)
    _check_window(inputs, cache)
    lowering = pipeline.Lowering(
        cache=cache,
        vocab_size=facts["vocab_size"],
        hidden_size=facts["hidden_size"],
        dtype=facts["dtype"],
        prefill_chunk=int(inputs["context.prefill_chunk"]),
        max_batch_size=int(inputs["context.max_batch_size"]),
        stored_weights=imported.retyped,
        vector_bits=inputs["target.vector_bits"],
    )
    lowered = lower(
        context,
        imported,
        pipeline.phases(lowering, imported.target),
        lambda mod: reference_kernels(mod, cache, lowering.vocab_size),
        lambda workspace, largest: _metadata(inputs, imported, cache, workspace, largest),
    )
    sizes = {
        "kv_cache_bytes": _cache_bytes(inputs, cache),
        "kv_cache_dtype": cache.kept_dtype,
        "decode_weights_bytes": decode_bytes(stored, imported.model.parameters),
        "largest_buffer_bytes": _largest_buffer(inputs, stored, cache, lowered.largest),
    }
    write_library(
        context,
        imported,
        lowered,
        lambda needs: _check_limits(inputs, needs, lowered, stored, cache),
        sizes,
    )


def _cache(inputs: Mapping[str, Any], facts: Mapping[str, Any]) -> KVCacheSpec:
    """The cache that the recipe asks for."""
    cache = KVCacheSpec.from_json(facts["cache"]).at_length(int(inputs["context.length"]))
    return cache.holding(read_stored(inputs))


def _metadata(
    inputs: Mapping[str, Any],
    imported: Imported,
    cache: KVCacheSpec,
    workspace: dict[str, int],
    largest: dict[str, int],
) -> dict[str, Any]:
    """What the library says of itself."""
    facts, stored = imported.facts, imported.stored
    image = ImageInput.of(imported.model.config, facts["image_size"])
    return library_metadata(
        model_type=imported.model.family,
        quantization=facts["scheme"],
        context_length=int(inputs["context.length"]),
        window=read_window(inputs),
        prefill_chunk=int(inputs["context.prefill_chunk"]),
        max_batch_size=int(inputs["context.max_batch_size"]),
        cache=cache,
        tensors=stored,
        workspace=workspace,
        program=_program(inputs, facts["dtype"], stored, cache, workspace, largest, image),
        image=image,
        exact_verification=_is_exact(inputs, stored),
    )


def _is_exact(inputs: Mapping[str, Any], stored: list[TensorSpec]) -> bool:
    """Whether a token has the same logits alone and among a few, bit for bit.

    Kernels for CPUs are made for that, but for codes that lie row by row, which are unpacked for several
    rows and not for one. Where a window slides, tokens come to lie in the place of others.
    """
    on_cpu = inputs["target.vector_bits"] is not None
    tiled = all(
        len(item.shape) > len(("rows", "columns"))
        for item in stored
        if item.name.endswith(".q_weight")
    )
    return on_cpu and tiled and read_window(inputs) is None


def _program(
    inputs: Mapping[str, Any],
    dtype: str,
    stored: list[TensorSpec],
    cache: KVCacheSpec,
    workspace: Mapping[str, int],
    largest: Mapping[str, int],
    image: ImageInput | None,
) -> dict[str, Any] | None:
    """What a library for browsers says of itself to WebLLM; None for others."""
    if inputs["target.platform"] != web_program.PLATFORM:
        return None
    cache_bytes = _cache_bytes(inputs, cache)
    memory = MemoryPlan(
        weights=weight_bytes(stored),
        kv_cache=cache_bytes,
        context_length=int(inputs["context.length"]),
        workspace=workspace,
    )
    return web_program.compiled_program(
        stored,
        dtype=dtype,
        largest_buffer=_largest_buffer(inputs, stored, cache, largest),
        device_memory=memory.total,
        image=image,
    )


def _largest_buffer(
    inputs: Mapping[str, Any],
    stored: list[TensorSpec],
    cache: KVCacheSpec,
    largest: Mapping[str, int],
) -> int:
    """Bytes of the largest buffer that a kernel binds: a weight, workspace, a layer's cache."""
    layer = _cache_bytes(inputs, cache) // cache.layers
    return max(*map(nbytes, stored), *largest.values(), layer)


def _check_limits(
    inputs: Mapping[str, Any],
    needs: list[KernelNeeds],
    lowered: Lowered,
    stored: list[TensorSpec],
    cache: KVCacheSpec,
) -> None:
    from edgec.scheduling.device_limits import check_allocations, check_kernels  # noqa: PLC0415

    limits, name = dict(inputs["target.limits"]), str(inputs["target.name"])
    check_kernels(needs, limits, name)
    layer = _cache_bytes(inputs, cache) // cache.layers
    check_allocations(stored, lowered.largest, layer, limits, name)


def _check_window(inputs: Mapping[str, Any], cache: KVCacheSpec) -> None:
    if read_window(inputs) is None:
        return
    if not cache.plain or not cache.rotates:
        raise UnsupportedModelError(
            "this model's layers have windows, soft caps or rotary embeddings of their own, which"
            " kernels for sliding windows don't know",
            where="context.sliding_window",
            remedy="leave it out",
        )
    if not cache.slides:
        raise UnsupportedModelError(
            "kernels for sliding windows rotate all dimensions of a head, by one set of frequencies;"
            f" this model rotates {cache.rope.rotary_dim} of {cache.head_dim},"
            f" RoPE type {cache.rope.kind}",
            where="context.sliding_window",
            remedy="leave it out",
        )


def _cache_bytes(inputs: Mapping[str, Any], cache: KVCacheSpec) -> int:
    """Keys and values of one sequence that is as long as it can be."""
    return cache.sequence_bytes(int(inputs["context.length"]), read_window(inputs))
