"""``edgec recipes``: the recipes that come with edgec."""

from __future__ import annotations

import click

from edgec.cli.options import example, json_option
from edgec.cli.output import print_json, stdout_table
from edgec.recipe import find_recipe, list_recipes, load_any_recipe


@click.command(epilog=example("edgec recipes"))
@json_option
def command(*, as_json: bool) -> None:
    """List the recipes that come with edgec.

    A recipe of your own is a YAML file; give its path wherever a recipe's name is asked for.
    """
    recipes = [load_any_recipe(find_recipe(name)) for name in list_recipes()]
    if as_json:
        listed = [
            {
                "name": item.recipe.name,
                "path": str(item.path),
                "model": item.recipe.model.source,
                "scheme": item.recipe.quantization.scheme,
                "targets": list(item.recipe.targets),
                "description": item.recipe.description,
            }
            for item in recipes
        ]
        print_json("edgec.recipes/v1", {"recipes": listed})
        return
    stdout_table(
        ("NAME", "MODEL", "SCHEME", "TARGETS", "DESCRIPTION"),
        [
            (
                item.recipe.name,
                item.recipe.model.source,
                item.recipe.quantization.scheme,
                ", ".join(item.recipe.targets),
                item.recipe.description,
            )
            for item in recipes
        ],
    )
