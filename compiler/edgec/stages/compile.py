"""Stages 4 to 6: lower the module for one target, schedule its kernels, emit the library."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.artifacts import web_program
from edgec.artifacts.layout import LIBRARY_FACTS, REFERENCE_KERNELS
from edgec.artifacts.library_metadata import library_metadata
from edgec.artifacts.memory_plan import MemoryPlan
from edgec.errors import UnsupportedModelError
from edgec.files import pretty_json
from edgec.ir.load import load_tvm
from edgec.layouts.parts import split_tables, table_parts
from edgec.layouts.specs import decode_bytes, nbytes, weight_bytes
from edgec.models.images import ImageInput
from edgec.models.kv_cache import KVCacheSpec
from edgec.stages.context_inputs import read_window
from edgec.stages.library import Dump, emit, in_parts, retyped, whole_tensors
from edgec.stages.model_file import ModelFile
from edgec.stages.names import FACTS, MODULE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.layouts.specs import TensorSpec
    from edgec.scheduling.device_limits import KernelNeeds
    from edgec.stages.context import StageContext

# Whose libraries run as they are: nobody looks at their kernels one by one.
_THIS_KIND_OF_CPU = "cpu"


def run(context: StageContext) -> None:
    """See the module's docstring. Writes the library and ``library.json``."""
    load_tvm()
    import tvm  # noqa: PLC0415 - after load_tvm

    inputs = context.inputs
    imported = context.parents["import"]
    facts = json.loads((imported / FACTS).read_text())
    model = ModelFile.read(context.parents["checkpoint"])
    whole = whole_tensors(model, inputs)
    tables = table_parts(whole, model.parameters, dict(inputs["target.limits"]))
    stored = split_tables(whole, tables)
    cache = KVCacheSpec.from_json(facts["cache"]).at_length(int(inputs["context.length"]))
    _check_window(inputs, cache)
    target = tvm.target.Target(dict(inputs["target.tvm"]))
    dump = Dump(context.local.get("dump_ir"))
    mod = tvm.ir.load_json((imported / MODULE).read_text())
    dump("import", mod)
    if tables:
        mod, facts["weights"] = in_parts(mod, target, facts["weights"], whole, tables)
        dump("import-split", mod)
    lowered = _lower(context, mod, target, facts, model.family, stored, cache, dump)
    context.progress.note(f"generating code for {len(lowered.kernels)} kernels")
    emitted, needs = emit(context, lowered.mod, target)
    _check_limits(inputs, needs, lowered, stored, cache)
    facts_out = {
        "library": emitted.primary.name,
        "files": [path.name for path in emitted.files],
        "model_lib": inputs["library.name"],
        "metadata": lowered.metadata,
        "kernels": lowered.kernels,
        "device_kernels": {item.name: item.to_json() for item in needs},
        "runtime_functions": lowered.runtime_functions,
        "kv_cache_bytes": _cache_bytes(inputs, cache),
        "decode_weights_bytes": decode_bytes(stored, model.parameters),
        "largest_buffer_bytes": _largest_buffer(inputs, stored, cache, lowered.largest),
    }
    (context.out / LIBRARY_FACTS).write_text(pretty_json(facts_out))


@dataclass(frozen=True)
class _Lowered:
    """A module ready for code generation, and what was learnt on the way.

    Attributes:
        mod: lowered to the virtual machine's instructions.
        kernels: where each one's schedule came from, by name.
        metadata: of the library.
        largest: bytes of the largest buffer in the workspace of each function.
        runtime_functions: that the module expects of the runtime.
    """

    mod: Any
    kernels: dict[str, str]
    metadata: dict[str, Any]
    largest: dict[str, int]
    runtime_functions: list[str]


def _lower(
    context: StageContext,
    mod: Any,
    target: Any,
    facts: dict[str, Any],
    family: str,
    stored: list[TensorSpec],
    cache: KVCacheSpec,
    dump: Dump,
) -> _Lowered:
    import tvm  # noqa: PLC0415 - after load_tvm

    from edgec.ir.memory import largest_buffers, runtime_functions, workspace_bytes  # noqa: PLC0415
    from edgec.passes import pipeline  # noqa: PLC0415
    from edgec.passes.attach_metadata import AttachMetadata  # noqa: PLC0415
    from edgec.passes.reference_kernels import reference_kernels  # noqa: PLC0415
    from edgec.scheduling.report import kernel_sources, scheduled_kernels  # noqa: PLC0415

    inputs, note = context.inputs, context.progress.note
    config = ModelFile.read(context.parents["checkpoint"]).config
    image = ImageInput.of(config, facts["image_size"])
    lowering = pipeline.Lowering(
        cache=cache,
        vocab_size=facts["vocab_size"],
        hidden_size=facts["hidden_size"],
        dtype=facts["dtype"],
        prefill_chunk=int(inputs["context.prefill_chunk"]),
        max_batch_size=int(inputs["context.max_batch_size"]),
        stored_weights=retyped(facts["weights"], stored),
        vector_bits=inputs["target.vector_bits"],
    )
    ready = scheduled_kernels(mod)
    for name, passes in pipeline.phases(lowering, target):
        note(f"phase {name}")
        ready = scheduled_kernels(mod)
        mod = pipeline.apply(mod, passes, target)
        dump(name, mod)
        if name == pipeline.FUSED and inputs["target.platform"] != _THIS_KIND_OF_CPU:
            references = reference_kernels(mod, cache, lowering.vocab_size)
            (context.out / REFERENCE_KERNELS).write_text(tvm.ir.save_json(references))
    kernels = kernel_sources(ready, mod)
    note("phase 4-runtime")
    mod = pipeline.apply(mod, pipeline.plan_passes(), target)
    workspace, largest = workspace_bytes(mod), largest_buffers(mod)
    metadata = library_metadata(
        model_type=family,
        quantization=facts["scheme"],
        context_length=int(inputs["context.length"]),
        window=read_window(inputs),
        prefill_chunk=lowering.prefill_chunk,
        max_batch_size=lowering.max_batch_size,
        cache=cache,
        tensors=stored,
        workspace=workspace,
        program=_program(inputs, facts["dtype"], stored, cache, workspace, largest, image),
        image=image,
    )
    mod = pipeline.apply(mod, [AttachMetadata(metadata)], target)
    expected = runtime_functions(mod)
    mod = pipeline.apply(mod, pipeline.machine_passes(), target)
    dump("4-runtime", mod)
    return _Lowered(mod, kernels, metadata, largest, expected)


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
    lowered: _Lowered,
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
