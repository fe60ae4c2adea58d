"""A JSON Schema of ours as a page for people: a table of fields for every section.

Markdown as Git hosts render it. The pages in ``docs/reference`` are made of these tables and of
the introductions beside the schemas (``edgec/recipe/reference.py``, ``edgec/target/reference.py``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from edgec.validation.messages import flow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Schema = dict[str, Any]

_COLUMNS = ("Field", "Type", "Default", "Meaning", "Example")
_KINDS = {
    "string": "text",
    "integer": "whole number",
    "number": "number",
    "boolean": "true or false",
    "array": "list",
    "object": "mapping",
}


def field_tables(schema: Schema) -> str:
    """Tables of all fields: the top level first, then each section under a heading.

    Args:
        schema: what :func:`edgec.validation.editorschema.editor_schema` made.

    Returns:
        Markdown that begins with a heading of level 3 and ends with a line's end.
    """
    parts = ["### Top level\n", _table(schema)]
    for path, section in _sections(schema):
        parts += [f"### {_title(path)}\n", f"{_cell(section['description'])}\n", _table(section)]
    return "\n".join(parts)


def options_table(rows: Mapping[str, str], columns: tuple[str, str]) -> str:
    """A table of two columns; the first one is shown as code."""
    return _rows(columns, [(_code(left), _cell(right)) for left, right in rows.items()])


def _sections(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every mapping of known fields below ``schema``, in order; ``[]`` marks the items of a list."""
    for name, field in schema.get("properties", {}).items():
        for place, inner in ((f"{path}{name}", field), (f"{path}{name}[]", field.get("items", {}))):
            if "properties" in inner:
                yield place, inner
            yield from _sections(inner, f"{place}.")


def _title(path: str) -> str:
    items = path.endswith("[]")
    return f"`{path.removesuffix('[]')}`" + (", each item" if items else "")


def _link(path: str) -> str:
    """A link to a section's heading; hosts make its anchor from the letters of the heading."""
    title = _title(path)
    anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
    return f"[{title}](#{anchor})"


def _table(section: Schema) -> str:
    # The section's own path isn't known here, and a link needs it: it is the schema's business.
    required = section.get("required", [])
    rows = [
        (
            _code(name),
            _cell(_type(field, name)),
            "**required**" if name in required else _default(field),
            _cell(field["description"]),
            ", ".join(_code(flow(example)) for example in field["examples"]),
        )
        for name, field in section["properties"].items()
    ]
    return _rows(_COLUMNS, rows)


def _rows(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
