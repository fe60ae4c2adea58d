"""From an imported module to one that code is generated for, whatever the module computes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.artifacts.layout import LIBRARY_FACTS, REFERENCE_KERNELS
from edgec.files import pretty_json
from edgec.layouts.parts import split_tables, table_parts
from edgec.stages.library import Dump, emit, in_parts, retyped, whole_tensors
from edgec.stages.model_file import ModelFile
from edgec.stages.names import FACTS, MODULE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edgec.layouts.specs import TensorSpec
    from edgec.scheduling.device_limits import KernelNeeds
    from edgec.stages.context import StageContext

# Whose libraries run as they are: nobody looks at their kernels one by one.
_THIS_KIND_OF_CPU = "cpu"


@dataclass(frozen=True)
class Imported:
    """What a compile stage begins with.

    Attributes:
        model: the checked model.
        facts: that the import stage wrote.
        mod: Relax, with tables in parts where the target can't bind them whole.
        stored: the tensors of the target's layout.
        retyped: stored types that differ from the module's, by weight position.
        target: TVM's.
        dump: writes a module as text if the user asked for it.
    """

    model: ModelFile
    facts: dict[str, Any]
    mod: Any
    stored: list[TensorSpec]
    retyped: dict[int, tuple[tuple[int, ...], str]]
    target: Any
    dump: Dump


@dataclass(frozen=True)
class Lowered:
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


def open_imported(context: StageContext) -> Imported:
    """Read what the import stage wrote. TVM is loaded."""
    import tvm  # noqa: PLC0415 - after load_tvm

    inputs, folder = context.inputs, context.parents["import"]
    facts = json.loads((folder / FACTS).read_text())
    model = ModelFile.read(context.parents["checkpoint"])
    whole = whole_tensors(model, inputs)
    tables = table_parts(whole, model.parameters, dict(inputs["target.limits"]))
    stored = split_tables(whole, tables)
    target = tvm.target.Target(dict(inputs["target.tvm"]))
    dump = Dump(context.local.get("dump_ir"))
    mod = tvm.ir.load_json((folder / MODULE).read_text())
    dump("import", mod)
    weights = facts["weights"]
    if tables:
        mod, weights = in_parts(mod, target, weights, whole, tables)
        dump("import-split", mod)
    return Imported(model, facts, mod, stored, retyped(weights, stored), target, dump)


def lower(
    context: StageContext,
    imported: Imported,
    phases: Sequence[tuple[str, list[Any]]],
    references: Callable[[Any], Any],
    metadata: Callable[[dict[str, int], dict[str, int]], dict[str, Any]],
) -> Lowered:
    """Run the phases up to scheduled kernels, and those behind them that all platforms share.

    Args:
        context: of the stage.
        imported: the module and its target.
        phases: of the target, by name.
        references: makes the module of what each kernel computes, before kernels are scheduled; kept
            beside the library where a stand-in checks kernels alone.
        metadata: of the library, from the bytes of workspace and of its largest buffer by function.
    """
    import tvm  # noqa: PLC0415 - after load_tvm

    from edgec.ir.memory import largest_buffers, runtime_functions, workspace_bytes  # noqa: PLC0415
    from edgec.passes import pipeline  # noqa: PLC0415
    from edgec.passes.attach_metadata import AttachMetadata  # noqa: PLC0415
    from edgec.scheduling.report import kernel_sources, scheduled_kernels  # noqa: PLC0415

    note, mod, target = context.progress.note, imported.mod, imported.target
    ready = scheduled_kernels(mod)
    for name, passes in phases:
        note(f"phase {name}")
        ready = scheduled_kernels(mod)
        mod = pipeline.apply(mod, passes, target)
        imported.dump(name, mod)
        if name == pipeline.FUSED and context.inputs["target.platform"] != _THIS_KIND_OF_CPU:
            (context.out / REFERENCE_KERNELS).write_text(tvm.ir.save_json(references(mod)))
    kernels = kernel_sources(ready, mod)
    note("phase 4-runtime")
    mod = pipeline.apply(mod, pipeline.plan_passes(), target)
    largest = largest_buffers(mod)
    described = metadata(workspace_bytes(mod), largest)
    mod = pipeline.apply(mod, [AttachMetadata(described)], target)
    expected = runtime_functions(mod)
    mod = pipeline.apply(mod, pipeline.machine_passes(), target)
    imported.dump("4-runtime", mod)
    return Lowered(mod, kernels, described, largest, expected)


def write_library(
    context: StageContext,
    imported: Imported,
    lowered: Lowered,
    check: Callable[[list[KernelNeeds]], None],
    facts: Mapping[str, Any],
) -> None:
    """Generate code, check what it takes of the device, and write ``library.json``.

    Args:
        context: of the stage.
        imported: whose target it is for.
        lowered: the module.
        check: raises if kernels or buffers are beyond the device's limits.
        facts: beside those of every library.
    """
    context.progress.note(f"generating code for {len(lowered.kernels)} kernels")
    emitted, needs = emit(context, lowered.mod, imported.target)
    check(needs)
    whole = {
        "library": emitted.primary.name,
        "files": [path.name for path in emitted.files],
        "model_lib": context.inputs["library.name"],
        "metadata": lowered.metadata,
        "kernels": lowered.kernels,
        "device_kernels": {item.name: item.to_json() for item in needs},
        "runtime_functions": lowered.runtime_functions,
        **facts,
    }
    (context.out / LIBRARY_FACTS).write_text(pretty_json(whole))
