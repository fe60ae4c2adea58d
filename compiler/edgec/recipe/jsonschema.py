"""The JSON Schema of recipes, for editors."""

from __future__ import annotations

from typing import Any

from edgec.recipe.schema import Recipe
from edgec.validation.editorschema import editor_schema


def recipe_json_schema() -> dict[str, Any]:
    """JSON Schema (draft 7) of recipe files; ``docs/schemas/recipe.schema.json`` holds it."""
    return editor_schema(Recipe, title="edgec recipe")
