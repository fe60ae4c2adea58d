"""A JSON Schema of ours as a page for people: a table of fields for every section.

The pages in ``docs/reference`` are made of these tables and of the introductions that stand beside
the schemas, ``edgec/recipe/reference.py`` and ``edgec/target/reference.py``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from edgec.validation.messages import flow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
    """Tables of all fields: the top level, then each section under a heading with its path.

    Args:
        schema: one that :func:`edgec.validation.editorschema.editor_schema` made.

    Returns:
        Markdown; its headings are of level 3.
    """
    parts = ["### Top level\n", _field_table(schema, "")]
    for path, section in _sections(schema, ""):
        parts += [f"### {_title(path)}\n", f"{section['description']}\n"]
        parts.append(_field_table(section, f"{path}."))
    return "\n".join(parts)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells hold Markdown, and bars in them are taken care of."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(_cell, cells))} |\n" for cells in lines)


def code(text: str) -> str:
    """``text`` as code."""
    return f"`{text}`"


def _sections(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every mapping of known fields below ``schema``; ``[]`` stands for each item of a list."""
    for name, field in schema["properties"].items():
        for place, inner in ((f"{path}{name}", field), (f"{path}{name}[]", field.get("items", {}))):
            if "properties" in inner:
                yield place, inner
                yield from _sections(inner, f"{place}.")
        for inner in field.get("patternProperties", {}).values():
            if "properties" in inner:
                yield f"{path}{name}", inner


def _field_table(section: Schema, path: str) -> str:
    required = section.get("required", ())
    rows = [
        (
            code(name),
            _type(field, f"{path}{name}"),
            "**required**" if name in required else _default(field),
            field["description"],
            ", ".join(code(flow(example)) for example in field["examples"]),
        )
        for name, field in section["properties"].items()
    ]
    return table(_COLUMNS, rows)


def _type(field: Schema, path: str) -> str:
    """What may be written, in words; ``path`` leads to the field."""
    if "const" in field:
        return code(flow(field["const"]))
    if "enum" in field:
        values = [code(flow(value)) for value in field["enum"] if value is not None]
        return f"one of {', '.join(values)}"
    kinds = [kind for kind in _as_list(field["type"]) if kind != "null"]
    if len(kinds) > 1:
        return " or ".join(_type({**field, "type": kind}, path) for kind in kinds)
    (kind,) = kinds
    limits = _limits(field)
    words = _KINDS[kind] + (f" ({'; '.join(limits)})" if limits else "")
    if kind == "array":
        return f"{words} of {_type(field['items'], f'{path}[]')}"
    if kind == "object":
        return f"{words}, {_keys(field, path)}"
    return words


def _keys(field: Schema, path: str) -> str:
    """Which keys a mapping has."""
    values = list(field.get("patternProperties", {}).values())
    if values:
        return f"each value: {_type(values[0], path)}"
    if "properties" not in field:
        return "its keys aren't checked"
    others = "" if field.get("additionalProperties") is False else "; it may have other keys"
    return f"see {_link(path)}{others}"


def _limits(field: Schema) -> list[str]:
    limits = [
        _range(field),
        _span(field.get("minLength"), None, field.get("maxLength"), " characters"),
        _span(field.get("minItems"), None, field.get("maxItems"), " items"),
    ]
    if "multipleOf" in field:
        limits.append(f"a multiple of {field['multipleOf']}")
    if field.get("uniqueItems"):
        limits.append("none twice")
    if meaning := field.get("patternErrorMessage"):
        limits.append(meaning.removeprefix("Write ").removesuffix("."))
    elif (pattern := field.get("pattern")) and field.get("type") != "integer":
        limits.append(f"matches {code(pattern)}")
    return [limit for limit in limits if limit]


def _range(field: Schema) -> str:
    if field.get("type") == "string":
        return ""
    return _span(field.get("minimum"), field.get("exclusiveMinimum"), field.get("maximum"), "")


def _span(least: float | None, above: float | None, most: float | None, unit: str) -> str:
    if least is not None and most is not None:
        return f"{least} to {most}{unit}"
    bounds = {"at least": least, "above": above, "at most": most}
    found = [f"{words} {bound}{unit}" for words, bound in bounds.items() if bound is not None]
    return ", ".join(found)


def _default(field: Schema) -> str:
    if "default" not in field:
        return "-"
    value = field["default"]
    return "none" if value in (None, "") else code(flow(value))


def _title(path: str) -> str:
    items = ", each item" if path.endswith("[]") else ""
    return code(path.removesuffix("[]")) + items


def _link(path: str) -> str:
    """A link to a section: Git hosts make a heading's anchor from its letters."""
    title = _title(path)
    anchor = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
    return f"[{title}](#{anchor})"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
