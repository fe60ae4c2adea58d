"""``edgec schema``: the fields of recipes and targets, for editors and for people."""

from __future__ import annotations

from pathlib import Path

import click

from edgec.cli.options import example, json_option
from edgec.cli.output import print_json
from edgec.errors import BuildError, UsageError
from edgec.files import write_atomic
from edgec.recipe.jsonschema import generic_json_schema, recipe_json_schema
from edgec.recipe.reference import recipe_reference
from edgec.recipe.reference_generic import generic_reference
from edgec.target.jsonschema import target_json_schema
from edgec.target.reference import target_reference
from edgec.validation.editorschema import schema_text

_SCHEMAS = {
    "recipe": recipe_json_schema,
    "generic": generic_json_schema,
    "target": target_json_schema,
}
_PAGES = {"recipe": recipe_reference, "generic": generic_reference, "target": target_reference}


@click.command(
    epilog=example(
        "edgec schema recipe",
        "edgec schema recipe --markdown",
        "edgec schema --write docs/schemas",
    )
)
@click.argument("kind", type=click.Choice(list(_SCHEMAS)), required=False)
@click.option(
    "--markdown", is_flag=True, help="The reference page for people in place of the schema."
)
@click.option(
    "--write",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write KIND.schema.json (or KIND.md) there instead; without KIND all kinds.",
)
@json_option
def command(*, kind: str | None, markdown: bool, folder: Path | None, as_json: bool) -> None:
    """Print the JSON Schema of recipes or of targets.

    That of recipes covers both kinds of models; generic is the part for generic ones. Editors complete and check the files by it. With --markdown the same fields as a page for
    people.
    """
    if folder is None:
        if kind is None:
            raise UsageError(
                "no schema is named",
                where="edgec schema",
                remedy=f"add {' or '.join(_SCHEMAS)}, or --write DIR",
            )
        if markdown and as_json:
            raise UsageError(
                "a page has no JSON output",
                where="edgec schema",
                remedy="leave out --markdown or --json",
            )
        click.echo(_text(kind, markdown=markdown), nl=False)
        return
    written = [_write(folder, name, markdown=markdown) for name in ([kind] if kind else _SCHEMAS)]
    if as_json:
        print_json("edgec.schemas/v1", {"files": [str(path) for path in written]})
        return
    for path in written:
        click.echo(str(path))


def _text(kind: str, *, markdown: bool) -> str:
    return _PAGES[kind]() if markdown else schema_text(_SCHEMAS[kind]())


def _write(folder: Path, kind: str, *, markdown: bool) -> Path:
    path = folder / (f"{kind}.md" if markdown else f"{kind}.schema.json")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, _text(kind, markdown=markdown))
    except OSError as error:
        raise BuildError(
            f"can't be written: {error.strerror}", where=str(path), remedy="name another folder"
        ) from error
    return path
