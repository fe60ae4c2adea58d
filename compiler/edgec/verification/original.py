"""The model that an artifact was built from, found again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from edgec.artifacts.layout import MANIFEST
from edgec.checkpoints import code_forms, open_checkpoint, open_source
from edgec.errors import UsageError, VerificationError
from edgec.files import sha256_file
from edgec.layouts.find import find_layout
from edgec.models.causal_lm_parameters import model_parameters
from edgec.models.kv_cache import stored_as
from edgec.models.window import SlidingWindow, longest_context
from edgec.quantization.plan import tensor_schemes
from edgec.quantization.schemes import find_scheme
from edgec.recipe import Recipe, find_recipe, load_recipe
from edgec.verification.reference import Reference, from_artifact, from_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.artifacts.artifact import Artifact
    from edgec.checkpoints import Checkpoint, ModelSource
    from edgec.models.parameters import Parameter

_FILES = "model.files."
# Of artifacts that were built when there was no other.
_FIRST_LAYOUT = "mlc"


@dataclass(frozen=True)
class Original:
    """An artifact's model and recipe.

    Attributes:
        recipe: as it was built, overrides included.
        base: the folder that its relative paths start from; None if its file isn't known here.
        checkpoint: the original weights.
        parameters: of the model.
    """

    recipe: Recipe
    base: Path | None
    checkpoint: Checkpoint
    parameters: list[Parameter]


def find_original(artifact: Artifact, source: str = "") -> Original:
    """Open the model that an artifact was built from.

    Args:
        artifact: an opened one.
        source: a model as recipes name it, relative to the current folder; empty for the one that
            the artifact's recipe names, if that comes with edgec or is on the hub.

    Raises:
        UsageError: the recipe isn't known here and no source was given.
        VerificationError: it is another model than the artifact was built from.
        CheckpointError: it can't be found or read.
    """
    recipe = _recipe(artifact)
    inputs: Mapping[str, Any] = artifact.manifest["model"].get("inputs", {})
    base = _base(recipe.name)
    if source:
        start = Path.cwd()
    elif "model.hub" in inputs:
        source, start = f"hf:{inputs['model.hub']}@{inputs['model.commit']}", Path.cwd()
    elif base is not None:
        source, start = recipe.model.source, base
    else:
        raise UsageError(
            f"the recipe {recipe.name} isn't among those that come with edgec, so its model"
            f" ({recipe.model.source}) can't be found",
            where=str(artifact.folder),
            remedy="name the model with --reference MODEL_SOURCE",
        )
    model = open_source(source, start)
    parameters = model_parameters(model.config)
    checkpoint = open_checkpoint(
        source,
        start,
        seed=recipe.model.seed,
        tensors=lambda _config: [item for p in parameters for item in p.sources],
    )
    _check_same(inputs, model, checkpoint)
    return Original(recipe, base, checkpoint, parameters)


def references(artifact: Artifact, original: Original) -> tuple[Reference, Reference]:
    """The original model and the one with the shipped weights, both in float32.

    Raises:
        ToolchainError: torch or transformers is missing.
        CheckpointError: weights can't be read.
    """
    quantization = original.recipe.quantization
    scheme = find_scheme(quantization.scheme)
    schemes = tensor_schemes(
        original.parameters,
        scheme,
        quantization.group_size,
        quantization.overrides,
        code_forms(original.checkpoint, original.parameters),
    )
    context = original.recipe.context
    window = SlidingWindow.of_recipe(context.sliding_window, context.attention_sinks)
    length = context.length or longest_context(original.checkpoint.config)
    stored = stored_as(context.kv_cache_dtype, scheme.dtype)
    first = from_checkpoint(original.checkpoint, window, context_length=length, stored=stored)
    if scheme.dtype == "float32" and not any(schemes.values()):
        # Weights lose nothing when they are stored in float32: one model serves as both.
        return first, first
    shipped = from_artifact(
        original.checkpoint.config,
        artifact.model,
        original.parameters,
        schemes,
        find_layout(artifact.manifest.get("layout", _FIRST_LAYOUT), where=MANIFEST),
        window,
        context_length=length,
        stored=stored,
    )
    return first, shipped


def _recipe(artifact: Artifact) -> Recipe:
    try:
        return Recipe.model_validate(artifact.manifest["recipe"])
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise VerificationError(
            f"the recipe in the manifest can't be read: {place}: {first['msg']}",
            where=str(artifact.folder),
            remedy="build it again with edgec build",
        ) from error


def _base(name: str) -> Path | None:
    """The folder of the recipe of this name that comes with edgec."""
    try:
        loaded = load_recipe(find_recipe(name))
    except UsageError:
        return None
    return loaded.base if loaded.recipe.name == name else None


def _check_same(inputs: Mapping[str, Any], model: ModelSource, checkpoint: Checkpoint) -> None:
    """Compare the digests that the manifest has of the model's files, as far as both have them."""
    if model.hub is not None:
        expected = inputs.get("model.commit", model.hub.commit)
        if expected != model.hub.commit:
            raise _another(model, f"its commit is {model.hub.commit} in place of {expected}")
        return
    for path in checkpoint.files():
        expected = inputs.get(f"{_FILES}{path.name}")
        if expected is not None and sha256_file(path) != expected:
            raise _another(model, f"its {path.name} has other bytes")


def _another(model: ModelSource, why: str) -> VerificationError:
    return VerificationError(
        f"this is not the model that the artifact was built from: {why}",
        where=model.where,
        remedy="name the one it was built from, or build the artifact again",
    )
