"""Recipes: one YAML file that says which model is built, how, and for what.

Read ``schema.py`` (the fields, with ``sections.py`` and ``quantization.py``; ``generic.py`` for models
that aren't decoders), then ``load.py``
(file to recipe), ``overrides.py`` (``-s``), ``source.py`` (``hf:``, ``synthetic:``, ``stdlib:``)
``names.py`` (names that are files) and ``synthetic.py`` (random weights).
"""

from edgec.recipe.generic import GenericRecipe
from edgec.recipe.load import (
    Loaded,
    LoadedGeneric,
    LoadedRecipe,
    find_recipe,
    list_recipes,
    load_any_recipe,
    load_recipe,
)
from edgec.recipe.quantization import Override, Quantization
from edgec.recipe.schema import Recipe
from edgec.recipe.source import (
    GenericReference,
    ModelReference,
    TextReference,
    parse_generic_source,
    parse_model_source,
    parse_text_source,
)
from edgec.recipe.synthetic import local_config

__all__ = [
    "GenericRecipe",
    "GenericReference",
    "Loaded",
    "LoadedGeneric",
    "LoadedRecipe",
    "ModelReference",
    "Override",
    "Quantization",
    "Recipe",
    "TextReference",
    "find_recipe",
    "list_recipes",
    "load_any_recipe",
    "load_recipe",
    "local_config",
    "parse_generic_source",
    "parse_model_source",
    "parse_text_source",
]
