"""From a generic recipe and a target to the stages of a build, without running any."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.artifacts.conversation import templates_digest
from edgec.artifacts.layout import library_name
from edgec.checkpoints import open_checkpoint, open_source, tokenizer_files
from edgec.emitters.toolchain import tool_versions
from edgec.errors import CheckpointError
from edgec.importers.files import source_files
from edgec.layouts.parts import LIMIT
from edgec.pipeline.blame import blaming
from edgec.pipeline.stage import StageSpec
from edgec.quantization.schemes import with_floats
from edgec.recipe import local_config, parse_generic_source
from edgec.runtime.threads import usable_cpus
from edgec.target import missing_features

if TYPE_CHECKING:
    from edgec.checkpoints import ModelSource
    from edgec.pipeline.filedigests import FileDigests
    from edgec.progress import Progress
    from edgec.recipe import GenericReference, LoadedGeneric
    from edgec.target import Target

_TVM = ("apache-tvm", "apache-tvm-ffi")
_FRAMEWORKS = {
    "hub": ("torch", "transformers"),
    "folder": ("torch", "transformers"),
    "synthetic": ("torch", "transformers"),
    "exported": ("torch",),
    "torch": ("torch",),
    "onnx": ("onnx",),
}
_RUNNERS = {**_FRAMEWORKS, "onnx": ("onnx", "onnxruntime")}
_HOUR = 3600.0
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

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.loaded.recipe.name


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
    loaded = _with_activations(loaded, target)
    recipe, base = loaded.recipe, loaded.base
    reference = parse_generic_source(recipe.model.source)
    with blaming(loaded):
        source = _open(loaded, reference)
        model_inputs = _model_inputs(loaded, reference, source, digests, progress)
    local = {
        "source": _pinned(loaded, source),
        "base": str(base),
        "seed": recipe.model.seed,
        "threads": usable_cpus(),
    }
    declared = {
        "generic.inputs": [
            {"name": name, "shape": list(item.shape), "dtype": item.dtype}
            for name, item in recipe.inputs.items()
            if item.shape is not None
        ],
        "generic.bounds": {name: item.max for name, item in recipe.dimensions.items()},
    }
    task = None if recipe.task is None else recipe.task.model_dump(mode="json")
    quantization = recipe.quantization
    shapes = {
        "quantization.scheme": quantization.scheme,
        "quantization.group_size": quantization.group_size,
        "quantization.overrides": [item.model_dump(mode="json") for item in quantization.overrides],
    }
    config = source.config_file if source is not None else None
    stages = [
        StageSpec(
            "checkpoint",
            "edgec.stages.checkpoint_generic",
            {**model_inputs, **declared, "generic.task": task},
            local={**local, "config": str(config) if config else None},
            distributions=(*_TVM, *_FRAMEWORKS[reference.kind]),
            timeout_s=24 * _HOUR,
        ),
        StageSpec(
            "interface",
            "edgec.stages.interface",
            {"quantization.scheme": quantization.scheme, "chat.templates": templates_digest()},
            parents=("checkpoint",),
            timeout_s=_HOUR,
        ),
        StageSpec(
            "quantize",
            "edgec.stages.quantize",
            {**shapes, "quantization.method": quantization.method},
            local={**local, "source": None},
            parents=("checkpoint",),
            code=(f"edgec.quantization.methods.{quantization.method}",),
            distributions=("numpy",),
            timeout_s=24 * _HOUR,
        ),
        StageSpec(
            "import",
            "edgec.stages.import_generic",
            shapes,
            parents=("checkpoint",),
            distributions=_TVM,
            timeout_s=_HOUR,
        ),
        StageSpec(
            "compile",
            "edgec.stages.compile_generic",
            {
                **shapes,
                "target.platform": target.platform,
                "target.tvm": target.tvm,
                "target.vector_bits": target.vector_bits,
                "target.layout": target.layout,
                "target.library": target.library.model_dump(mode="json"),
                "target.limits": target.limits,
                "target.name": target.name,
                "library.name": library_name(recipe.name, quantization.scheme),
                "toolchain": tool_versions(
                    target.platform,
                    target.triple,
                    target.library.forms,
                    target.library.cuda_architectures,
                    target.library.cuda_toolkit,
                ),
            },
            local={"dump_ir": str(dump_ir) if dump_ir else None},
            parents=("checkpoint", "import"),
            code=(f"edgec.emitters.{target.platform}",),
            distributions=_TVM,
            timeout_s=float(recipe.tuning.timeout_s),
            timeout_field="tuning.timeout_s",
        ),
        StageSpec(
            "pack",
            "edgec.stages.pack",
            {
                "target.layout": target.layout,
                "target.limits": {k: v for k, v in target.limits.items() if k == LIMIT},
            },
            local={"threads": usable_cpus()},
            parents=("checkpoint", "quantize"),
            distributions=("numpy",),
            timeout_s=24 * _HOUR,
        ),
    ]
    if verify:
        stages.append(
            StageSpec(
                "verify",
                "edgec.stages.verify_generic",
                {
                    **declared,
                    "generic.ranges": {
                        name: list(item.range)
                        for name, item in recipe.inputs.items()
                        if item.range is not None
                    },
                    "quality.samples": recipe.quality.samples,
                    "target.standin": target.standin,
                    "target.standin_cpu": target.standin_cpu,
                    "target.limits": target.limits,
                    "target.cpu_features": list(target.cpu_features),
                    "target.architecture": target.architecture,
                    "standin.missing_features": missing_features(target),
                },
                local=local,
                parents=("checkpoint", "quantize", "compile", "pack"),
                code=(f"edgec.standins.{target.standin}",),
                distributions=(*_TVM, *_RUNNERS[reference.kind]),
                timeout_s=24 * _HOUR,
            )
        )
    return GenericPlan(loaded, target, tuple(stages), source)


def _with_activations(loaded: LoadedGeneric, target: Target) -> LoadedGeneric:
    """The recipe in the variant that the target's devices can compute with."""
    if target.activations is None:
        return loaded
    quantization = loaded.recipe.quantization
    scheme = with_floats(quantization.scheme, target.activations)
    changed = quantization.model_copy(update={"scheme": scheme})
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"quantization": changed}))


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
    inputs: dict[str, Any] = {"model.kind": reference.kind}
    if source is None:
        files = source_files(Path(loaded.base) / reference.location)
        if reference.function is not None:
            inputs["model.function"] = reference.function
    elif source.hub is not None:
        # A commit of the hub names its content.
        return {"model.hub": source.hub.source.repository, "model.commit": source.hub.commit}
    else:
        files = tokenizer_files(source.folder)
        if source.kind == "synthetic":
            inputs["model.seed"] = loaded.recipe.model.seed
            files.append(source.config_file)
        else:
            files += open_checkpoint(loaded.recipe.model.source, loaded.base).files()
    for path, digest in digests.digests(files, progress).items():
        inputs[f"model.files.{path.name}"] = digest
    return inputs


def _pinned(loaded: LoadedGeneric, source: ModelSource | None) -> str:
    """The source as the stages open it: a hub revision is resolved once."""
    if source is None or source.hub is None:
        return loaded.recipe.model.source
    return f"hf:{source.hub.source.repository}@{source.hub.commit}"
