"""The stages that builds of decoders and of generic models have in common, and what they read."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from edgec.artifacts.layout import library_name
from edgec.checkpoints import open_checkpoint, tokenizer_files
from edgec.emitters.toolchain import tool_versions
from edgec.layouts.find import find_layout
from edgec.layouts.parts import LIMIT
from edgec.pipeline.stage import StageSpec
from edgec.quantization.schemes import with_floats
from edgec.runtime.threads import usable_cpus
from edgec.standins import amx
from edgec.target import missing_features

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from edgec.checkpoints import ModelSource
    from edgec.pipeline.filedigests import FileDigests
    from edgec.progress import Progress
    from edgec.recipe import LoadedGeneric, LoadedRecipe
    from edgec.target import Target

    Either = LoadedRecipe | LoadedGeneric

TVM = ("apache-tvm", "apache-tvm-ffi")
HOUR = 3600.0

AnyLoaded = TypeVar("AnyLoaded", "LoadedRecipe", "LoadedGeneric")


def with_activations(loaded: AnyLoaded, target: Target) -> AnyLoaded:
    """The recipe in the variant that the target's devices can compute with."""
    if target.activations is None:
        return loaded
    quantization = loaded.recipe.quantization
    scheme = with_floats(quantization.scheme, target.activations)
    changed = quantization.model_copy(update={"scheme": scheme})
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"quantization": changed}))


def shapes_of(loaded: Either) -> dict[str, Any]:
    """The inputs that say how each matrix is stored."""
    quantization = loaded.recipe.quantization
    return {
        "quantization.scheme": quantization.scheme,
        "quantization.group_size": quantization.group_size,
        "quantization.overrides": [item.model_dump(mode="json") for item in quantization.overrides],
    }


def model_inputs(
    loaded: Either, source: ModelSource, digests: FileDigests, progress: Progress | None
) -> dict[str, Any]:
    """What the content of a model with a config is, by digest; never where it lies."""
    if source.hub is not None:
        # A commit of the hub names its content.
        return {"model.hub": source.hub.source.repository, "model.commit": source.hub.commit}
    files = tokenizer_files(source.folder)
    inputs: dict[str, Any] = {"model.kind": source.kind}
    if source.kind == "synthetic":
        inputs["model.seed"] = loaded.recipe.model.seed
        files.append(source.config_file)
    else:
        files += open_checkpoint(loaded.recipe.model.source, loaded.base).files()
    return {**inputs, **file_inputs(files, digests, progress)}


def file_inputs(
    files: Iterable[Path], digests: FileDigests, progress: Progress | None
) -> dict[str, Any]:
    """The content of files, by their names."""
    found = digests.digests(list(files), progress)
    return {f"model.files.{path.name}": digest for path, digest in found.items()}


def local_inputs(loaded: Either, source: ModelSource | None) -> dict[str, Any]:
    """What stages need to open the model here, and no digest knows.

    A revision of the hub is resolved once, when the build is planned.
    """
    where = loaded.recipe.model.source
    if source is not None and source.hub is not None:
        where = f"hf:{source.hub.source.repository}@{source.hub.commit}"
    return {
        "source": where,
        "base": str(loaded.base),
        "seed": loaded.recipe.model.seed,
        "threads": usable_cpus(),
    }


def quantize_spec(loaded: Either, local: Mapping[str, Any]) -> StageSpec:
    """The stage that finds codes and scales."""
    method = loaded.recipe.quantization.method
    return StageSpec(
        "quantize",
        "edgec.stages.quantize",
        {**shapes_of(loaded), "quantization.method": method},
        local=dict(local),
        parents=("checkpoint",),
        code=(f"edgec.quantization.methods.{method}",),
        distributions=("numpy",),
        timeout_s=24 * HOUR,
    )


def compile_spec(
    loaded: Either,
    target: Target,
    module: str,
    inputs: Mapping[str, Any],
    dump_ir: Path | None,
) -> StageSpec:
    """The stage that makes the library.

    Args:
        loaded: the recipe.
        target: what to compile for.
        module: of the stage.
        inputs: beside those of every compile stage.
        dump_ir: folder for the module's text after each phase.
    """
    recipe = loaded.recipe
    return StageSpec(
        "compile",
        module,
        {
            **shapes_of(loaded),
            **inputs,
            "target.platform": target.platform,
            "target.tvm": target.tvm,
            "target.vector_bits": target.vector_bits,
            "target.layout": target.layout,
            "target.library": target.library.model_dump(mode="json"),
            "target.limits": target.limits,
            "target.name": target.name,
            "library.name": library_name(recipe.name, recipe.quantization.scheme),
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
        code=(f"edgec.emitters.{target.platform}", _layout_module(target)),
        distributions=TVM,
        timeout_s=float(recipe.tuning.timeout_s),
        timeout_field="tuning.timeout_s",
    )


def pack_spec(target: Target) -> StageSpec:
    """The stage that writes weights in the target's layout.

    Of the limits only those that decide how weights are stored: targets without them share what is
    packed.
    """
    limits = {name: most for name, most in target.limits.items() if name == LIMIT}
    return StageSpec(
        "pack",
        "edgec.stages.pack",
        {"target.layout": target.layout, "target.limits": limits},
        local={"threads": usable_cpus()},
        parents=("checkpoint", "quantize"),
        code=(_layout_module(target),),
        distributions=("numpy",),
        timeout_s=24 * HOUR,
    )


def _layout_module(target: Target) -> str:
    """The module of the target's layout."""
    find_layout(target.layout, where=f"{target.name}: layout")
    return f"edgec.layouts.{target.layout}"


def verify_spec(
    target: Target,
    module: str,
    inputs: Mapping[str, Any],
    local: Mapping[str, Any],
    distributions: tuple[str, ...],
) -> StageSpec:
    """The stage that runs the library on the target's stand-in.

    Args:
        target: whose stand-in.
        module: of the stage.
        inputs: beside those that say what the stand-in is.
        local: what no digest knows.
        distributions: of the reference.
    """
    missing = missing_features(target)
    emulated = amx.emulated(missing)
    return StageSpec(
        "verify",
        module,
        {
            **inputs,
            "target.layout": target.layout,
            "target.standin": target.standin,
            "target.standin_cpu": target.standin_cpu,
            "target.limits": target.limits,
            "target.cpu_features": list(target.cpu_features),
            "target.architecture": target.architecture,
            "standin.missing_features": [] if emulated else missing,
            "standin.emulated_features": emulated,
        },
        local=dict(local),
        parents=("checkpoint", "quantize", "compile", "pack"),
        code=(f"edgec.standins.{target.standin}", _layout_module(target)),
        distributions=(*TVM, *distributions),
        timeout_s=24 * HOUR,
    )
