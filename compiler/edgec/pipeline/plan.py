"""From a recipe and a target to the stages of a build, without running any.

Planning reads the recipe, the profile, the model's ``config.json`` and the digests of the model's
files; it loads neither TVM nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.artifacts.conversation import ALWAYS_SYSTEM, templates_digest
from edgec.errors import UsageError
from edgec.models.find import family_name
from edgec.models.images import ImageInput
from edgec.models.kv_cache import AUTO, stored_as
from edgec.models.window import SlidingWindow, longest_context, trained_window
from edgec.pipeline.blame import blaming
from edgec.pipeline.model_source import open_model
from edgec.pipeline.stage import StageSpec
from edgec.pipeline.stage_specs import (
    HOUR,
    TVM,
    compile_spec,
    local_inputs,
    model_inputs,
    pack_spec,
    quantize_spec,
    shapes_of,
    verify_spec,
    with_activations,
)
from edgec.quantization.schemes import find_scheme
from edgec.verification.text import load_documents, text_digest
from edgec.verification.verdict import gates

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.checkpoints import ModelSource
    from edgec.pipeline.filedigests import FileDigests
    from edgec.progress import Progress
    from edgec.recipe import LoadedRecipe
    from edgec.target import Target

_DEFAULT_CONTEXT = 2048
_CPU = "llvm"


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
        stored: how the KV cache holds keys and values; empty: as the model computes them.
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
    stored: str = ""

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.loaded.recipe.name

    @property
    def what_takes_memory(self) -> str:
        """What decides how much the model takes beside its weights, for messages."""
        return "context.length or context.prefill_chunk"

    def broken_limits(self, report: dict[str, Any]) -> list[str]:
        """The recipe's limits on quality that a report breaks."""
        return gates(report, self.loaded.recipe.quality)


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
    loaded = with_activations(loaded, target)
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
    local = local_inputs(loaded, source)
    shapes = shapes_of(loaded)
    context = {
        "context.length": length,
        "context.prefill_chunk": chunk,
        "context.max_batch_size": _batch_size(recipe.context.max_batch_size, target, window),
        "context.sliding_window": window.size if window else None,
        "context.attention_sinks": window.sinks if window else 0,
    }
    stored = _stored(loaded, target)
    cache = {**context, "context.kv_cache_dtype": stored}
    family_code = (f"edgec.models.{family}",)
    reference = verify and recipe.quality.text is not None
    stages = [
        StageSpec(
            "checkpoint",
            "edgec.stages.checkpoint",
            model_inputs(loaded, source, digests, progress),
            local=local,
            code=family_code,
            distributions=TVM,
            timeout_s=24 * HOUR,
        ),
        StageSpec(
            "chat",
            "edgec.stages.chat",
            {
                **context,
                **images,
                "quantization.scheme": recipe.quantization.scheme,
                "chat.template": recipe.chat.template,
                "chat.templates": templates_digest(),
                "chat.always_system": target.platform in ALWAYS_SYSTEM,
                **{f"generation.{k}": v for k, v in recipe.generation.model_dump().items()},
            },
            parents=("checkpoint",),
            timeout_s=HOUR,
        ),
        quantize_spec(loaded, local),
        StageSpec(
            "import",
            "edgec.stages.importer",
            {**shapes, **images},
            parents=("checkpoint",),
            code=family_code,
            distributions=TVM,
            timeout_s=HOUR,
        ),
        compile_spec(loaded, target, "edgec.stages.compile", cache, dump_ir),
        pack_spec(target),
    ]
    if verify:
        stages.append(_verify_stage(loaded, target, cache, local, reference=reference))
    return BuildPlan(
        loaded, target, tuple(stages), source, length, chunk, reference, window, image, stored
    )


def _verify_stage(
    loaded: LoadedRecipe,
    target: Target,
    context: dict[str, Any],
    local: dict[str, Any],
    *,
    reference: bool,
) -> StageSpec:
    quality = loaded.recipe.quality
    inputs: dict[str, Any] = {**context, "quality.reference": reference}
    if quality.text is not None:
        documents = load_documents(quality.text, loaded.base)
        inputs |= {
            "quality.text": text_digest(documents),
            "quality.tokens": quality.tokens,
            "quality.window": quality.window,
        }
    return verify_spec(
        target,
        "edgec.stages.verify",
        inputs,
        {**local, "text": quality.text},
        ("torch", "transformers") if reference else (),
    )


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


def _stored(loaded: LoadedRecipe, target: Target) -> str:
    """How the KV cache holds keys and values."""
    dtype = find_scheme(loaded.recipe.quantization.scheme).dtype
    stored = stored_as(loaded.recipe.context.kv_cache_dtype, dtype)
    if stored and target.tvm["kind"] != _CPU:
        raise UsageError(
            f"the KV cache can be {stored} on CPUs only, and on {target.name} it is that of the"
            f" activations, {dtype}",
            where=f"{loaded.document.place(('context', 'kv_cache_dtype'))}: context.kv_cache_dtype",
            remedy=f"leave it out, or write {AUTO}, or build for targets that are CPUs",
        )
    return stored


def _batch_size(asked: int, target: Target, window: SlidingWindow | None) -> int:
    # Elsewhere TVM's cache fails when it hands the windows of several sequences to the device.
    batches = window is None or target.tvm["kind"] in ("llvm", "cuda")
    return asked if batches else 1
