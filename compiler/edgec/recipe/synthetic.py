"""``--weights synthetic``: a recipe's fields when its model has random weights.

The random weights need the model's ``config.json``, which lies in the model's folder or, for a
model of the hub, in the folder beside the recipe that has the recipe's name. What compares the
outputs with the original's, and a chat format without a tokenizer, has no meaning then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from edgec.errors import UsageError
from edgec.recipe.source import parse_generic_source, parse_model_source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONFIG = "config.json"
_TOKENIZER = "tokenizer.json"


def synthetic_overrides(recipe: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """The ``key=value`` texts that make a recipe build with random weights.

    Args:
        recipe: its fields, not yet checked.
        path: its file.

    Raises:
        UsageError: the model's config isn't there.
    """
    source = _source(recipe)
    if source is None or source.startswith("synthetic:"):
        return ()
    generic = recipe.get("kind") == "generic"
    if generic:
        _check_config(source, path)
    config = local_config(source, path)
    if config is None:
        folder = path.stem if source.startswith("hf:") else source
        raise UsageError(
            f"random weights need the model's {CONFIG}, and there is none",
            where=str(path.parent / folder / CONFIG),
            remedy=f"put the {CONFIG} of {source} there",
        )
    if generic:
        return (f"model.source=synthetic:{config}", "quality.max_error=null")
    found = [f"model.source=synthetic:{config}", "quality=null"]
    if not (path.absolute().parent / config).with_name(_TOKENIZER).is_file():
        found.append("chat.template=completion")
    return tuple(found)


def _check_config(source: str, path: Path) -> None:
    try:
        kind = parse_generic_source(source).kind
    except PydanticCustomError:
        return  # the check of the recipe says it better
    if kind in ("onnx", "exported", "torch"):
        raise UsageError(
            f"{source} brings its own weights, which can't be replaced by random ones",
            where=str(path),
            remedy="leave out --weights synthetic",
        )


def local_config(source: str, path: Path) -> str | None:
    """The ``config.json`` that needs no network, relative to the recipe's folder; None if there is none.

    Args:
        source: ``model.source`` of the recipe.
        path: the recipe's file.
    """
    try:
        reference = parse_model_source(source)
    except PydanticCustomError:
        return None
    folder = path.stem if reference.kind == "hub" else reference.location
    config = folder if reference.kind == "synthetic" else f"{folder}/{CONFIG}"
    return config if (path.absolute().parent / config).is_file() else None


def _source(recipe: Mapping[str, Any]) -> str | None:
    """``model.source`` as it stands in the file; what isn't text is refused later."""
    model = recipe.get("model")
    source = model.get("source") if isinstance(model, dict) else None
    return source if isinstance(source, str) else None
