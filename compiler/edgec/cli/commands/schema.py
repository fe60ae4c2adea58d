"""``edgec schema``: the JSON Schemas that editors complete recipes and targets by."""

from __future__ import annotations

from pathlib import Path

import click

from edgec.cli.options import example, json_option
from edgec.cli.output import print_json
from edgec.errors import BuildError, UsageError
from edgec.files import write_atomic
from edgec.recipe.jsonschema import recipe_json_schema
from edgec.target.jsonschema import target_json_schema
from edgec.validation.editorschema import schema_text

_SCHEMAS = {"recipe": recipe_json_schema, "target": target_json_schema}


@click.command(epilog=example("edgec schema recipe", "edgec schema --write docs/schemas"))
@click.argument("kind", type=click.Choice(list(_SCHEMAS)), required=False)
@click.option(
    "--write",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write KIND.schema.json there instead; without KIND both.",
)
@json_option
def command(*, kind: str | None, folder: Path | None, as_json: bool) -> None:
    """Print the JSON Schema of recipes or of targets."""
    if folder is None:
        if kind is None:
            raise UsageError(
                "no schema is named",
                where="edgec schema",
                remedy=f"add {' or '.join(_SCHEMAS)}, or --write DIR",
            )
        click.echo(schema_text(_SCHEMAS[kind]()), nl=False)
        return
    written = [_write(folder, name) for name in ([kind] if kind else _SCHEMAS)]
    if as_json:
        print_json("edgec.schemas/v1", {"files": [str(path) for path in written]})
        return
    for path in written:
        click.echo(str(path))


def _write(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.schema.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, schema_text(_SCHEMAS[kind]()))
    except OSError as error:
        raise BuildError(
            f"can't be written: {error.strerror}", where=str(path), remedy="name another folder"
        ) from error
    return path
