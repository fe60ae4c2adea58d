"""From a generic recipe and a target to the stages of a build, without running any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.artifacts.conversation import templates_digest
from edgec.checkpoints import open_source
from edgec.errors import CheckpointError
from edgec.importers.files import source_files
from edgec.pipeline.blame import blaming
from edgec.pipeline.stage import StageSpec
from edgec.pipeline.stage_specs import (
    HOUR,
    TVM,
    compile_spec,
    file_inputs,
    local_inputs,
    model_inputs,
    pack_spec,
    quantize_spec,
    shapes_of,
    verify_spec,
    with_activations,
)
from edgec.recipe import local_config, parse_generic_source
from edgec.verification.generic import broken_limit

if TYPE_CHECKING:
    from edgec.checkpoints import ModelSource
    from edgec.pipeline.filedigests import FileDigests
    from edgec.progress import Progress
    from edgec.recipe import GenericReference, LoadedGeneric
    from edgec.target import Target

_FRAMEWORKS = {
    "hub": ("torch", "transformers"),
    "folder": ("torch", "transformers"),
    "synthetic": ("torch", "transformers"),
    "exported": ("torch",),
    "torch": ("torch",),
    "onnx": ("onnx",),
}
_RUNNERS = {**_FRAMEWORKS, "onnx": ("onnx", "onnxruntime")}
_OTHERWISE = "build it with --weights synthetic, which needs no download"


@dataclass(frozen=True)
class GenericPlan:
    """One generic recipe for one target.

    Attributes:
        loaded: the recipe with its overrides.
        target: fully resolved.
        stages: what has to be run or found in the store.
        source: the model, where it has a config; None for a single file.
    """

    loaded: LoadedGeneric
    target: Target
    stages: tuple[StageSpec, ...]
    source: ModelSource | None

    context_length = 0
    """Tokens that stay from call to call: none."""
    window = None

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.loaded.recipe.name

    @property
    def what_takes_memory(self) -> str:
        """What decides how much the model takes beside its weights, for messages."""
        return "the maximum of a dimension"

    def broken_limits(self, report: dict[str, Any]) -> list[str]:
        """The recipe's limits on quality that a report breaks."""
        limit = broken_limit(report, self.loaded.recipe.quality.max_error)
        return [] if limit is None else [limit]


def plan_generic(
    loaded: LoadedGeneric,
    target: Target,
    digests: FileDigests,
    *,
    verify: bool = True,
    dump_ir: Path | None = None,
    progress: Progress | None = None,
) -> GenericPlan:
    """Declare the stages of a build; see :func:`edgec.pipeline.plan.plan_build`.

    Raises:
        EdgecError: the model or its files can't be found or read.
    """
    loaded = with_activations(loaded, target)
    recipe = loaded.recipe
    reference = parse_generic_source(recipe.model.source)
    with blaming(loaded):
        source = _open(loaded, reference)
        content = _model_inputs(loaded, reference, source, digests, progress)
    local = local_inputs(loaded, source)
    declared = {
        "generic.inputs": [
            {"name": name, "shape": list(item.shape), "dtype": item.dtype}
            for name, item in recipe.inputs.items()
            if item.shape is not None
        ],
        "generic.bounds": {name: item.max for name, item in recipe.dimensions.items()},
    }
    task = None if recipe.task is None else recipe.task.model_dump(mode="json")
    config = source.config_file if source is not None else None
    stages = [
        StageSpec(
            "checkpoint",
            "edgec.stages.checkpoint_generic",
            {**content, **declared, "generic.task": task},
            local={**local, "config": str(config) if config else None},
            distributions=(*TVM, *_FRAMEWORKS[reference.kind]),
            timeout_s=24 * HOUR,
        ),
        StageSpec(
            "interface",
            "edgec.stages.interface",
            {
                "quantization.scheme": recipe.quantization.scheme,
                "chat.templates": templates_digest(),
            },
            parents=("checkpoint",),
            timeout_s=HOUR,
        ),
        quantize_spec(loaded, {**local, "source": None}),
        StageSpec(
            "import",
            "edgec.stages.import_generic",
            shapes_of(loaded),
            parents=("checkpoint",),
            distributions=TVM,
            timeout_s=HOUR,
        ),
        compile_spec(loaded, target, "edgec.stages.compile_generic", {}, dump_ir),
        pack_spec(target),
    ]
    if verify:
        ranges = {
            name: list(item.range) for name, item in recipe.inputs.items() if item.range is not None
        }
        inputs = {
            **declared,
            "generic.ranges": ranges,
            "quality.samples": recipe.quality.samples,
        }
        runners = _RUNNERS[reference.kind]
        stages.append(verify_spec(target, "edgec.stages.verify_generic", inputs, local, runners))
    return GenericPlan(loaded, target, tuple(stages), source)


def _open(loaded: LoadedGeneric, reference: GenericReference) -> ModelSource | None:
    """The model's config, where there is one."""
    if reference.kind not in ("hub", "folder", "synthetic"):
        return None
    source = loaded.recipe.model.source
    try:
        return open_source(source, loaded.base)
    except CheckpointError as error:
        if reference.kind != "hub" or local_config(source, loaded.path) is None:
            raise
        remedy = f"{error.remedy}, or {_OTHERWISE}" if error.remedy else _OTHERWISE
        raise CheckpointError(error.what, where=error.where, remedy=remedy) from error


def _model_inputs(
    loaded: LoadedGeneric,
    reference: GenericReference,
    source: ModelSource | None,
    digests: FileDigests,
    progress: Progress | None,
) -> dict[str, Any]:
    """What the model's content is, by digest; never where it lies."""
    if source is not None:
        return model_inputs(loaded, source, digests, progress)
    inputs: dict[str, Any] = {"model.kind": reference.kind}
    if reference.function is not None:
        inputs["model.function"] = reference.function
    files = source_files(Path(loaded.base) / reference.location)
    return {**inputs, **file_inputs(files, digests, progress)}
