"""The JSON Schema of recipes, for editors."""

from __future__ import annotations

from typing import Any

from edgec.recipe.generic import GenericRecipe
from edgec.recipe.load import GENERIC
from edgec.recipe.schema import Recipe
from edgec.validation.editorschema import editor_schema

_TITLE = "edgec recipe"


def recipe_json_schema() -> dict[str, Any]:
    """JSON Schema (draft 7) of recipe files; ``docs/schemas/recipe.schema.json`` holds it.

    Which fields there are depends on ``kind``: an editor shows those of the kind that is written.
    """
    decoder, generic = decoder_json_schema(), generic_json_schema()
    head = {"$schema": decoder.pop("$schema"), "title": decoder.pop("title")}
    del generic["$schema"], generic["title"]
    chosen = {"required": ["kind"], "properties": {"kind": {"const": GENERIC}}}
    return {**head, "type": "object", "if": chosen, "then": generic, "else": decoder}


def decoder_json_schema() -> dict[str, Any]:
    """JSON Schema of the recipes of decoders alone."""
    return editor_schema(Recipe, title=_TITLE)


def generic_json_schema() -> dict[str, Any]:
    """JSON Schema of the recipes of generic models alone."""
    return editor_schema(GenericRecipe, title=f"{_TITLE} of a generic model")
