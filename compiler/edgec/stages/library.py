"""What the stages that compile a module have in common, whatever the module computes."""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.emitters.spec import LibrarySpec
from edgec.layouts.find import find_layout
from edgec.layouts.parts import split_tables
from edgec.stages.quantization_inputs import read_scheme, read_schemes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.emitters.spec import Emitted
    from edgec.layouts.specs import TensorSpec
    from edgec.scheduling.device_limits import KernelNeeds
    from edgec.stages.context import StageContext
    from edgec.stages.model_file import ModelFile


def emit(context: StageContext, mod: Any, target: Any) -> tuple[Emitted, list[KernelNeeds]]:
    """Generate the library.

    Args:
        context: of the stage; files go where its results go.
        mod: lowered to the virtual machine's instructions.
        target: TVM's.

    Returns:
        The library's files, and what its kernels take of a device that isn't a CPU.
    """
    from edgec.scheduling.device_limits import device_code  # noqa: PLC0415 - after load_tvm

    inputs = context.inputs
    emitter = importlib.import_module(f"edgec.emitters.{inputs['target.platform']}")
    spec = LibrarySpec(model_lib=str(inputs["library.name"]), **_tuples(inputs["target.library"]))
    kind = str(target.kind.name)
    with ExitStack() as stack:
        needs = [] if kind == "llvm" else stack.enter_context(device_code(kind))
        emitted = emitter.emit(mod, target, context.out, spec, context.progress)
    return emitted, needs


def _tuples(fields: Any) -> dict[str, Any]:
    """A profile's ``library`` section as a stage's inputs hold it: JSON knows lists only."""
    return {key: tuple(item) if isinstance(item, list) else item for key, item in fields.items()}


def whole_tensors(model: ModelFile, inputs: Any) -> list[TensorSpec]:
    """The tensors of the layout, no table of which is in parts."""
    scheme = read_scheme(inputs)
    schemes = read_schemes(model.parameters, inputs, model.codes)
    layout = find_layout(str(inputs["target.layout"]))
    return layout.tensors(model.parameters, schemes, scheme.dtype)


def in_parts(
    mod: Any,
    target: Any,
    logical: list[dict[str, Any]],
    whole: list[TensorSpec],
    tables: Mapping[str, tuple[int, ...]],
) -> tuple[Any, list[dict[str, Any]]]:
    """The module and its list of weights with tables in parts, which have their stored types."""
    from edgec.passes import pipeline  # noqa: PLC0415 - after load_tvm
    from edgec.passes.split_tables import SplitTables  # noqa: PLC0415

    parts, weights = {}, []
    for index, (item, spec) in enumerate(zip(logical, whole, strict=True)):
        if spec.parameter not in tables:
            weights.append(item)
            continue
        stored = split_tables([spec], tables)
        parts[index] = [(part.shape, part.dtype) for part in stored]
        weights += [{"name": p.name, "shape": p.shape, "dtype": p.dtype} for p in stored]
    return pipeline.apply(mod, [SplitTables(parts)], target), weights


def retyped(
    logical: list[dict[str, Any]], stored: list[TensorSpec]
) -> dict[int, tuple[tuple[int, ...], str]]:
    """Positions whose stored type differs from the logical one."""
    assert len(logical) == len(stored), "the module and the layout list the same tensors"
    changed = {}
    for index, (item, spec) in enumerate(zip(logical, stored, strict=True)):
        if tuple(item["shape"]) != spec.shape or item["dtype"] != spec.dtype:
            changed[index] = (spec.shape, spec.dtype)
    return changed


class Dump:
    """Writes the module as text after each phase, when the user asked for it."""

    def __init__(self, folder: Any) -> None:
        self._folder = Path(str(folder)) if folder else None
        if self._folder:
            self._folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, name: str, mod: Any) -> None:
        """Write the module as it is after the phase of a name."""
        if self._folder:
            (self._folder / f"{name}.py").write_text(mod.script())
