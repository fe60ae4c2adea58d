"""Stage 9 of generic models: run the library on its stand-in and compare it with the source.

Writes ``report.json`` and, if the library could be run, ``golden.safetensors``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgec.artifacts.interface import INTERFACE, read_interface
from edgec.artifacts.layout import GOLDEN, LIBRARY_FACTS, REFERENCE_KERNELS, REPORT
from edgec.files import pretty_json
from edgec.layouts.find import find_layout
from edgec.layouts.tensor_cache import TensorCache
from edgec.layouts.unpack import unpacked_rows
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.stages.generic_source import open_original
from edgec.stages.model_file import ModelFile
from edgec.stages.names import RANGES
from edgec.standins import Requirements
from edgec.verification.generic import Models, check_outputs, compare, run_samples
from edgec.verification.generic_library import GenericLibrary
from edgec.verification.golden_tensors import GoldenTensors, write_golden_tensors
from edgec.verification.samples import sample_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgec.artifacts.interface import ModelInterface
    from edgec.importers.imported import SourceModel
    from edgec.quantization.schemes import TensorScheme
    from edgec.stages.context import StageContext
    from edgec.verification.generic import Outputs, Run

_MATRICES = ("linear", "embedding")


def run(context: StageContext) -> None:
    """See the module's docstring."""
    folder, note = context.parents["checkpoint"], context.progress.note
    model, interface = ModelFile.read(folder), read_interface(folder / INTERFACE)
    with QuantizedCheckpoint(context.parents["quantize"]) as quantized:
        schemes = {item.name: quantized.scheme(item.name) for item in model.parameters}
        dtype = quantized.dtype
    samples = sample_inputs(interface, _ranges(context), int(context.inputs["quality.samples"]))
    library = _library(context, interface)
    missing = list(context.inputs["standin.missing_features"])
    kernels: dict[str, Any] = {}
    artifact: Run | None = None
    facts: dict[str, Any] = {"standin": library.standin, "ran": not missing}
    # The source comes first: torch and TVM share a process only in this order.
    note("opening the original model")
    original = open_original(context.local, context.inputs).model
    if missing:
        facts["reason"] = f"this CPU lacks {', '.join(missing)}"
        note(f"the library is not run: {facts['reason']}")
    else:
        if emulated := context.inputs["standin.emulated_features"]:
            facts["emulated"] = list(emulated)
        if library.emulated:
            note("checking each kernel alone")
            kernels = {"kernels": library.check_kernels([list(samples[0].values())])}
        note("loading the library")
        artifact = library.open()
    models = _models(context, model, schemes, original, artifact)
    results = run_samples(models, samples, context.progress)
    figures = compare(interface, results, dtype)
    check_outputs(figures)
    (context.out / REPORT).write_text(pretty_json({"verification": facts, **figures, **kernels}))
    if results[0].artifact is not None:
        golden = _golden(interface, results[0], figures["tolerance"])
        write_golden_tensors(context.out / GOLDEN, golden)


def _ranges(context: StageContext) -> dict[str, Sequence[float]]:
    """What the recipe says; else what the tables that an input indexes hold."""
    rows = json.loads((context.parents["checkpoint"] / RANGES).read_text())
    return {
        **{name: (0, count) for name, count in rows.items()},
        **{name: tuple(bounds) for name, bounds in context.inputs["generic.ranges"].items()},
    }


def _library(context: StageContext, interface: ModelInterface) -> GenericLibrary:
    inputs, compiled = context.inputs, context.parents["compile"]
    facts = json.loads((compiled / LIBRARY_FACTS).read_text())
    return GenericLibrary(
        path=compiled / facts["library"],
        weights=context.parents["pack"],
        function=interface.function,
        standin=str(inputs["target.standin"]),
        requirements=Requirements(
            architecture=str(inputs["target.architecture"]),
            cpu_features=tuple(inputs["target.cpu_features"]),
            cpu=inputs["target.standin_cpu"],
            limits=dict(inputs["target.limits"]),
        ),
        kernels=sorted(facts["kernels"]),
        references=compiled / REFERENCE_KERNELS,
    )


def _models(
    context: StageContext,
    model: ModelFile,
    schemes: Mapping[str, TensorScheme | None],
    original: SourceModel,
    artifact: Run | None,
) -> Models:
    def source(arguments: Sequence[npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        return original.run(arguments)

    if not any(schemes.values()):
        return Models(artifact, source, source)
    layout = find_layout(str(context.inputs["target.layout"]))
    cache = TensorCache(context.parents["pack"])
    replaced = {
        parameter.sources[0].name: unpacked_rows(
            layout, cache, parameter, schemes[parameter.name], 0, parameter.shape[0]
        )
        for parameter in model.parameters
        if parameter.role in _MATRICES
    }

    def shipped(arguments: Sequence[npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        return original.run(arguments, replaced)

    groups = {
        parameter.sources[0].name: group
        for parameter in model.parameters
        if parameter.role == "linear"
        and (group := layout.activation_group(parameter, schemes[parameter.name])) is not None
    }

    def rounded(arguments: Sequence[npt.NDArray[Any]]) -> Sequence[npt.NDArray[Any]]:
        return original.run(arguments, replaced, groups)

    return Models(artifact, source, shipped, rounded if groups else None)


def _golden(interface: ModelInterface, result: Outputs, tolerance: float) -> GoldenTensors:
    names = [item.name for item in interface.outputs]
    assert result.artifact is not None
    return GoldenTensors(
        inputs=result.inputs,
        artifact=dict(zip(names, result.artifact, strict=True)),
        reference=dict(zip(names, result.shipped, strict=True)),
        tolerance=tolerance,
    )
