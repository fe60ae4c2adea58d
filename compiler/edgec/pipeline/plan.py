"""From a recipe and a target to the stages of a build, without running any.

Planning reads the recipe, the profile, the model's ``config.json`` and the digests of the model's
files; it loads neither TVM nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgec.artifacts.conversation import ALWAYS_SYSTEM, templates_digest
from edgec.artifacts.layout import library_name
from edgec.checkpoints import open_checkpoint, tokenizer_files
from edgec.emitters.toolchain import tool_versions
from edgec.errors import UsageError
from edgec.layouts.parts import LIMIT
from edgec.models.find import family_name
from edgec.models.images import ImageInput
from edgec.models.window import SlidingWindow, longest_context, trained_window
from edgec.pipeline.blame import blaming
from edgec.pipeline.model_source import open_model
from edgec.pipeline.stage import StageSpec
from edgec.quantization.schemes import with_floats
from edgec.runtime.threads import usable_cpus
from edgec.target import missing_features
from edgec.verification.text import load_documents, text_digest

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.checkpoints import ModelSource
    from edgec.pipeline.filedigests import FileDigests
    from edgec.progress import Progress
    from edgec.recipe import LoadedRecipe
    from edgec.target import Target

_TVM = ("apache-tvm", "apache-tvm-ffi")
_HOUR = 3600.0
_DEFAULT_CONTEXT = 2048


@dataclass(frozen=True)
class BuildPlan:
    """One recipe for one target.

    Attributes:
        loaded: the recipe with its overrides.
        target: fully resolved.
        stages: what has to be run or found in the store.
        context_length: tokens, the recipe's or the model's own.
        prefill_chunk: tokens of one forward call.
        reference: whether the outputs are compared with the original model.
        window: that slides over the context, if one does.
        image: what stands for an image in a prompt, if the model takes images.
    """

    loaded: LoadedRecipe
    target: Target
    stages: tuple[StageSpec, ...]
    source: ModelSource
    context_length: int
    prefill_chunk: int
    reference: bool
    window: SlidingWindow | None
    image: ImageInput | None = None

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.loaded.recipe.name


def plan_build(
    loaded: LoadedRecipe,
    target: Target,
    digests: FileDigests,
    *,
    verify: bool = True,
    dump_ir: Path | None = None,
    progress: Progress | None = None,
) -> BuildPlan:
    """Declare the stages of a build.

    Args:
        loaded: the recipe.
        target: what to build for.
        digests: of the model's files, cached between builds.
        verify: whether to run the library on its stand-in and compare.
        dump_ir: folder for the module's text after each phase; not part of any digest.
        progress: told of the bytes that are read for digests.

    Raises:
        EdgecError: the model, its config or the evaluation text can't be used.
    """
    loaded = _with_activations(loaded, target)
    recipe = loaded.recipe
    source = open_model(loaded)
    with blaming(loaded, source):
        family = family_name(source.config)
        image = ImageInput.of(source.config, recipe.image.size)
    length = _context_length(loaded, source.config, image)
    window = _sliding_window(loaded, length)
    # Positions go from those of the window on.
    chunk = min(recipe.context.prefill_chunk, length - (window.size if window else 0))
    if image is not None:
        with blaming(loaded):
            image.check(context_length=length, prefill_chunk=chunk, slides=window is not None)
    images = {"image.size": image.size if image else None}
    quantization = recipe.quantization
    model_inputs = _model_inputs(loaded, source, digests, progress)
    local = {
        "source": _pinned_source(loaded, source),
        "base": str(loaded.base),
        "seed": recipe.model.seed,
        "threads": usable_cpus(),
    }
    shapes = {
        "quantization.scheme": quantization.scheme,
        "quantization.group_size": quantization.group_size,
        "quantization.overrides": [item.model_dump(mode="json") for item in quantization.overrides],
    }
    context = {
        "context.length": length,
        "context.prefill_chunk": chunk,
        "context.max_batch_size": _batch_size(recipe.context.max_batch_size, target, window),
        "context.sliding_window": window.size if window else None,
        "context.attention_sinks": window.sinks if window else 0,
    }
    family_code = (f"edgec.models.{family}",)
    reference = verify and recipe.quality.text is not None
    stages = [
        StageSpec(
            "checkpoint",
            "edgec.stages.checkpoint",
            model_inputs,
            local=local,
            code=family_code,
            distributions=_TVM,
            timeout_s=24 * _HOUR,
        ),
        StageSpec(
            "chat",
            "edgec.stages.chat",
            {
                **context,
                **images,
                "quantization.scheme": quantization.scheme,
                "chat.template": recipe.chat.template,
                "chat.templates": templates_digest(),
                "chat.always_system": target.platform in ALWAYS_SYSTEM,
                **{f"generation.{k}": v for k, v in recipe.generation.model_dump().items()},
            },
            parents=("checkpoint",),
            timeout_s=_HOUR,
        ),
        StageSpec(
            "quantize",
            "edgec.stages.quantize",
            {**shapes, "quantization.method": quantization.method},
            local=local,
            parents=("checkpoint",),
            code=(f"edgec.quantization.methods.{quantization.method}",),
            distributions=("numpy",),
            timeout_s=24 * _HOUR,
        ),
        StageSpec(
            "import",
            "edgec.stages.importer",
            {**shapes, **images},
            parents=("checkpoint",),
            code=family_code,
            distributions=_TVM,
            timeout_s=_HOUR,
        ),
        StageSpec(
            "compile",
            "edgec.stages.compile",
            {
                **shapes,
                **context,
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
            {"target.layout": target.layout, "target.limits": _table_limits(target)},
            local={"threads": usable_cpus()},
            parents=("checkpoint", "quantize"),
            distributions=("numpy",),
            timeout_s=24 * _HOUR,
        ),
    ]
    if verify:
        stages.append(_verify_stage(loaded, target, context, local, reference=reference))
    return BuildPlan(loaded, target, tuple(stages), source, length, chunk, reference, window, image)


def _verify_stage(
    loaded: LoadedRecipe,
    target: Target,
    context: dict[str, Any],
    local: dict[str, Any],
    *,
    reference: bool,
) -> StageSpec:
    quality = loaded.recipe.quality
    inputs: dict[str, Any] = {
        **context,
        "target.standin": target.standin,
        "target.standin_cpu": target.standin_cpu,
        "target.limits": target.limits,
        "target.cpu_features": list(target.cpu_features),
        "target.architecture": target.architecture,
        "standin.missing_features": missing_features(target),
        "quality.reference": reference,
    }
    if quality.text is not None:
        documents = load_documents(quality.text, loaded.base)
        inputs |= {
            "quality.text": text_digest(documents),
            "quality.tokens": quality.tokens,
            "quality.window": quality.window,
        }
    return StageSpec(
        "verify",
        "edgec.stages.verify",
        inputs,
        local={**local, "text": quality.text},
        parents=("checkpoint", "quantize", "compile", "pack"),
        code=(f"edgec.standins.{target.standin}",),
        distributions=(*_TVM, *(("torch", "transformers") if reference else ())),
        timeout_s=24 * _HOUR,
    )


def _with_activations(loaded: LoadedRecipe, target: Target) -> LoadedRecipe:
    """The recipe in the variant that the target's devices can compute with."""
    if target.activations is None:
        return loaded
    quantization = loaded.recipe.quantization
    scheme = with_floats(quantization.scheme, target.activations)
    quantization = quantization.model_copy(update={"scheme": scheme})
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"quantization": quantization}))


def _table_limits(target: Target) -> dict[str, int]:
    """The limits that decide how weights are stored; targets without them share what is packed."""
    return {name: most for name, most in target.limits.items() if name == LIMIT}


def _context_length(loaded: LoadedRecipe, config: dict[str, Any], image: ImageInput | None) -> int:
    own = longest_context(config)
    asked = loaded.recipe.context.length
    if own is None:
        return asked or _DEFAULT_CONTEXT
    if asked is not None and asked > own:
        remedy = f"write at most {own}, or leave it out"
        what = f"the {own} positions the model was made for"
        if own == trained_window(config):
            what = f"the {own} tokens that each token of this model sees"
            remedy += "; with context.sliding_window the text may become longer than that"
        raise UsageError(
            f"{asked} is more than {what}",
            where=f"{loaded.document.place(('context', 'length'))}: context.length",
            remedy=remedy,
        )
    return asked or (own if image is None else min(own, image.longest_context))


def _sliding_window(loaded: LoadedRecipe, length: int) -> SlidingWindow | None:
    context = loaded.recipe.context
    if context.sliding_window is None:
        return None
    if context.sliding_window >= length:
        raise UsageError(
            f"a window of {context.sliding_window} leaves no room for new tokens among the"
            f" {length} positions of the model",
            where=f"{loaded.document.place(('context', 'sliding_window'))}: context.sliding_window",
            remedy=f"write less than {length}",
        )
    return SlidingWindow.of_recipe(context.sliding_window, context.attention_sinks)


def _batch_size(asked: int, target: Target, window: SlidingWindow | None) -> int:
    # Elsewhere TVM's cache fails when it hands the windows of several sequences to the device.
    batches = window is None or target.tvm["kind"] in ("llvm", "cuda")
    return asked if batches else 1


def _model_inputs(
    loaded: LoadedRecipe, source: ModelSource, digests: FileDigests, progress: Progress | None
) -> dict[str, Any]:
    """What the model's content is, by digest; never where it lies."""
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
    for path, digest in digests.digests(files, progress).items():
        inputs[f"model.files.{path.name}"] = digest
    return inputs


def _pinned_source(loaded: LoadedRecipe, source: ModelSource) -> str:
    """The source as later stages open it: a hub revision is resolved once."""
    if source.hub is None:
        return loaded.recipe.model.source
    return f"hf:{source.hub.source.repository}@{source.hub.commit}"
