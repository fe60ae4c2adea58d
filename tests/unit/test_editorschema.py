from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgec import resources, yamlfile
from edgec.recipe.jsonschema import decoder_json_schema, generic_json_schema, recipe_json_schema
from edgec.target.jsonschema import target_json_schema
from edgec.validation.editorschema import schema_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCS = Path(__file__).parents[2] / "docs" / "schemas"
SCHEMAS = {
    "recipe": recipe_json_schema,
    "generic": generic_json_schema,
    "target": target_json_schema,
}
BOTH = pytest.mark.parametrize(("kind", "make"), SCHEMAS.items())
FILES = [
    (kind, path) for kind in SCHEMAS for path in sorted(resources.folder(f"{kind}s").glob("*.yaml"))
]
TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def fields(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for branch in {"then", "else"} & schema.keys():
        yield from fields(schema[branch], f"{path}{branch}: ")
    for name, field in schema.get("properties", {}).items():
        yield f"{path}{name}", field
        yield from fields(field, f"{path}{name}.")
        yield from fields(field.get("items", {}), f"{path}{name}[].")


def faults(schema: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """What a JSON Schema validator would say, for the keywords that our schemas use."""
    if "if" in schema:
        return faults(schema["else" if faults(schema["if"], value) else "then"], value, path)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(isinstance(value, TYPES[kind]) for kind in kinds):
        return [f"{path}: type"]
    if isinstance(value, dict):
        return faults_of_mapping(schema, value, path)
    if isinstance(value, list):
        short = [f"{path}: length"] if len(value) < schema.get("minItems", 0) else []
        items = schema.get("items", {})
        return [
            *short,
            *(
                fault
                for n, item in enumerate(value)
                for fault in faults(items, item, f"{path}.{n}")
            ),
        ]
    return [f"{path}: {value!r}"] if breaks(schema, value) else []


def faults_of_mapping(schema: dict[str, Any], value: dict[str, Any], path: str) -> list[str]:
    found = [f"{path}: no {name}" for name in schema.get("required", []) if name not in value]
    known = schema.get("properties", {})
    for name, item in value.items():
        if name in known:
            found += faults(known[name], item, f"{path}.{name}")
        elif schema.get("additionalProperties", True) is False:
            found.append(f"{path}: {name} unknown")
    return found


def breaks(schema: dict[str, Any], value: Any) -> bool:
    if value not in schema.get("enum", [schema.get("const", value)]):
        return True
    if isinstance(value, str):
        return not re.search(schema.get("pattern", ""), value)
    if value is None or isinstance(value, bool):
        return False
    return (
        not schema.get("minimum", value) <= value <= schema.get("maximum", value)
        or value <= schema.get("exclusiveMinimum", value - 1)
        or ("multipleOf" in schema and value % schema["multipleOf"] != 0)
    )


@BOTH
def test_the_committed_schema_is_in_sync(kind: str, make: Callable[[], dict[str, Any]]) -> None:
    committed = (DOCS / f"{kind}.schema.json").read_text(encoding="utf-8")
    assert committed == schema_text(make()), (
        f"run: edgec schema {kind} > docs/schemas/{kind}.schema.json"
    )


@BOTH
def test_every_field_is_described_with_an_example_that_is_valid(
    kind: str, make: Callable[[], dict[str, Any]]
) -> None:
    seen = dict(fields(make()))
    assert len(seen) > 10, kind
    for path, field in seen.items():
        assert field.get("description", "").endswith("."), path
        assert field.get("examples"), path
        for example in field["examples"]:
            required = {key: field[key] for key in field if key != "required"}
            assert faults(required, example, path) == []


@BOTH
def test_editors_get_everything_in_place(kind: str, make: Callable[[], dict[str, Any]]) -> None:
    text = schema_text(make())
    assert "$ref" not in text, kind
    assert "anyOf" not in text
    assert "draft-07" in text


@pytest.mark.parametrize(
    ("kind", "path"), FILES, ids=lambda value: str(getattr(value, "stem", value))
)
def test_our_own_files_are_valid(kind: str, path: Path) -> None:
    assert faults(SCHEMAS[kind](), yamlfile.load(path).data) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("group_size", 12), ("group_size", "32"), ("scheme", "q4"), ("overrides", [{"bits": 8}])],
)
def test_the_schema_refuses_what_the_loader_refuses(name: str, value: Any) -> None:
    schema = decoder_json_schema()["properties"]["quantization"]
    assert faults(schema, {"scheme": "q4f16_1"}) == []
    assert faults(schema, {"scheme": "q4f16_1", name: value}) != []
