"""Stages 4 to 6: lower the module for one target, schedule its kernels, emit the library."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.artifacts.layout import LIBRARY_FACTS
from edgec.artifacts.library_metadata import library_metadata
from edgec.files import pretty_json
from edgec.ir.load import load_tvm
from edgec.layouts.mlc import tensors
from edgec.models.kv_cache import KVCacheSpec
from edgec.stages.model_file import ModelFile
from edgec.stages.names import FACTS, MODULE
from edgec.stages.quantization_inputs import read_scheme, read_schemes

if TYPE_CHECKING:
    from edgec.layouts.specs import TensorSpec
    from edgec.stages.context import StageContext


def run(context: StageContext) -> None:
    """See the module's docstring. Writes the library and ``library.json``."""
    load_tvm()
    import tvm  # noqa: PLC0415 - after load_tvm

    from edgec.ir.memory import runtime_functions, workspace_bytes  # noqa: PLC0415
    from edgec.passes import pipeline  # noqa: PLC0415
    from edgec.passes.attach_metadata import AttachMetadata  # noqa: PLC0415
    from edgec.scheduling.report import kernel_sources, scheduled_kernels  # noqa: PLC0415

    inputs, note = context.inputs, context.progress.note
    dump = _Dump(context.local.get("dump_ir"))
    imported = context.parents["import"]
    facts = json.loads((imported / FACTS).read_text())
    model = ModelFile.read(context.parents["checkpoint"])
    stored = _stored_tensors(model, inputs)
    cache = KVCacheSpec.from_json(facts["cache"])
    target = tvm.target.Target(dict(inputs["target.tvm"]))
    lowering = pipeline.Lowering(
        cache=cache,
        vocab_size=facts["vocab_size"],
        hidden_size=facts["hidden_size"],
        dtype=facts["dtype"],
        prefill_chunk=int(inputs["context.prefill_chunk"]),
        max_batch_size=int(inputs["context.max_batch_size"]),
        stored_weights=_retyped(facts["weights"], stored),
        vector_bits=int(inputs["target.vector_bits"]),
    )
    mod = tvm.ir.load_json((imported / MODULE).read_text())
    dump("import", mod)
    ready = scheduled_kernels(mod)
    for name, passes in pipeline.cpu_phases(lowering, target):
        note(f"phase {name}")
        ready = scheduled_kernels(mod)
        mod = pipeline.apply(mod, passes, target)
        dump(name, mod)
    kernels = kernel_sources(ready, mod)
    note("phase 4-runtime")
    mod = pipeline.apply(mod, pipeline.plan_passes(), target)
    workspace = workspace_bytes(mod)
    metadata = library_metadata(
        model_type=model.family,
        quantization=facts["scheme"],
        context_length=int(inputs["context.length"]),
        prefill_chunk=lowering.prefill_chunk,
        max_batch_size=lowering.max_batch_size,
        cache=cache,
        tensors=stored,
        workspace=workspace,
    )
    mod = pipeline.apply(mod, [AttachMetadata(metadata)], target)
    expected = runtime_functions(mod)
    mod = pipeline.apply(mod, pipeline.machine_passes(), target)
    dump("4-runtime", mod)
    note(f"generating code for {len(kernels)} kernels")
    emitter = importlib.import_module(f"edgec.emitters.{inputs['target.platform']}")
    library: Path = emitter.emit(mod, target, context.out)
    facts_out = {
        "library": library.name,
        "metadata": metadata,
        "kernels": kernels,
        "runtime_functions": expected,
        "kv_cache_bytes": cache.nbytes(int(inputs["context.length"])),
    }
    (context.out / LIBRARY_FACTS).write_text(pretty_json(facts_out))


def _stored_tensors(model: ModelFile, inputs: Any) -> list[TensorSpec]:
    scheme = read_scheme(inputs)
    schemes = read_schemes(model.parameters, inputs)
    return tensors(model.parameters, schemes, scheme.dtype)


def _retyped(
    logical: list[dict[str, Any]], stored: list[TensorSpec]
) -> dict[int, tuple[tuple[int, ...], str]]:
    """Positions whose stored type differs from the logical one."""
    assert len(logical) == len(stored), "the module and the layout list the same tensors"
    changed = {}
    for index, (item, spec) in enumerate(zip(logical, stored, strict=True)):
        if tuple(item["shape"]) != spec.shape or item["dtype"] != spec.dtype:
            changed[index] = (spec.shape, spec.dtype)
    return changed


class _Dump:
    """Writes the module as text after each phase, when the user asked for it."""

    def __init__(self, folder: Any) -> None:
        self._folder = Path(str(folder)) if folder else None
        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, mod: Any) -> None:
        if self._folder:
            (self._folder / f"{name}.py").write_text(mod.script())
