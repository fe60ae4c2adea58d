"""Stages 4 to 6 of generic models: lower for one target, schedule the kernels, emit the library."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgec.artifacts.interface import INTERFACE, read_interface
from edgec.artifacts.layout import LIBRARY_FACTS, REFERENCE_KERNELS
from edgec.artifacts.library_metadata import generic_metadata
from edgec.files import pretty_json
from edgec.ir.load import load_tvm
from edgec.layouts.parts import split_tables, table_parts
from edgec.layouts.specs import nbytes, weight_bytes
from edgec.stages.library import Dump, emit, in_parts, retyped, whole_tensors
from edgec.stages.model_file import ModelFile
from edgec.stages.names import FACTS, MODULE

if TYPE_CHECKING:
    from edgec.artifacts.interface import ModelInterface
    from edgec.layouts.specs import TensorSpec
    from edgec.stages.context import StageContext


def run(context: StageContext) -> None:
    """See the module's docstring. Writes the library and ``library.json``."""
    load_tvm()
    import tvm  # noqa: PLC0415 - after load_tvm

    from edgec.scheduling.device_limits import check_allocations, check_kernels  # noqa: PLC0415

    inputs = context.inputs
    checkpoint, imported = context.parents["checkpoint"], context.parents["import"]
    facts = json.loads((imported / FACTS).read_text())
    model, interface = ModelFile.read(checkpoint), read_interface(checkpoint / INTERFACE)
    limits = dict(inputs["target.limits"])
    whole = whole_tensors(model, inputs)
    tables = table_parts(whole, model.parameters, limits)
    stored = split_tables(whole, tables)
    target = tvm.target.Target(dict(inputs["target.tvm"]))
    dump = Dump(context.local.get("dump_ir"))
    mod = tvm.ir.load_json((imported / MODULE).read_text())
    dump("import", mod)
    if tables:
        mod, facts["weights"] = in_parts(mod, target, facts["weights"], whole, tables)
        dump("import-split", mod)
    mod, found = _lower(context, mod, target, facts, model.family, stored, interface, dump)
    context.progress.note(f"generating code for {len(found['kernels'])} kernels")
    emitted, needs = emit(context, mod, target)
    largest = found.pop("largest")
    check_kernels(needs, limits, str(inputs["target.name"]))
    check_allocations(stored, largest, 0, limits, str(inputs["target.name"]))
    facts_out = {
        "library": emitted.primary.name,
        "files": [path.name for path in emitted.files],
        "model_lib": inputs["library.name"],
        **found,
        "device_kernels": {item.name: item.to_json() for item in needs},
        "kv_cache_bytes": 0,
        "decode_weights_bytes": weight_bytes(stored),
        "largest_buffer_bytes": max([*map(nbytes, stored), *largest.values()], default=0),
    }
    (context.out / LIBRARY_FACTS).write_text(pretty_json(facts_out))


def _lower(
    context: StageContext,
    mod: Any,
    target: Any,
    facts: dict[str, Any],
    family: str,
    stored: list[TensorSpec],
    interface: ModelInterface,
    dump: Dump,
) -> tuple[Any, dict[str, Any]]:
    """The module for the virtual machine, and what goes into ``library.json``."""
    import tvm  # noqa: PLC0415 - after load_tvm

    from edgec.ir.memory import largest_buffers, runtime_functions, workspace_bytes  # noqa: PLC0415
    from edgec.passes import pipeline, tensor_pipeline  # noqa: PLC0415
    from edgec.passes.attach_metadata import AttachMetadata  # noqa: PLC0415
    from edgec.passes.reference_kernels import reference_kernels  # noqa: PLC0415
    from edgec.scheduling.report import kernel_sources, scheduled_kernels  # noqa: PLC0415

    note = context.progress.note
    lowering = tensor_pipeline.TensorLowering(
        bounds=interface.bounds,
        stored_weights=retyped(facts["weights"], stored),
        vector_bits=context.inputs["target.vector_bits"],
    )
    ready = scheduled_kernels(mod)
    for name, passes in tensor_pipeline.phases(lowering, target):
        note(f"phase {name}")
        ready = scheduled_kernels(mod)
        mod = pipeline.apply(mod, passes, target)
        dump(name, mod)
        if name == pipeline.FUSED:
            references = reference_kernels(mod)
            (context.out / REFERENCE_KERNELS).write_text(tvm.ir.save_json(references))
    kernels = kernel_sources(ready, mod)
    note("phase 4-runtime")
    mod = pipeline.apply(mod, pipeline.plan_passes(), target)
    workspace, largest = workspace_bytes(mod), largest_buffers(mod)
    metadata = generic_metadata(
        model_type=family,
        quantization=facts["scheme"],
        interface=interface,
        tensors=stored,
        workspace=workspace,
    )
    mod = pipeline.apply(mod, [AttachMetadata(metadata)], target)
    expected = runtime_functions(mod)
    mod = pipeline.apply(mod, pipeline.machine_passes(), target)
    dump("4-runtime", mod)
    return mod, {
        "metadata": metadata,
        "kernels": kernels,
        "runtime_functions": expected,
        "largest": largest,
    }
