"""The JSON Schema of a model in the form that editors complete and explain best.

Draft 7, because the YAML language servers know it best; everything in place instead of behind
references, so that each field keeps its own description; no generated titles.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

if TYPE_CHECKING:
    from pydantic import BaseModel

_DIALECT = "http://json-schema.org/draft-07/schema#"


def editor_schema(model: type[BaseModel], *, title: str) -> dict[str, Any]:
    """The JSON Schema of the YAML files that ``model`` describes."""
    raw = model.model_json_schema(by_alias=True, schema_generator=_InOrder)
    definitions = raw.pop("$defs", {})
    schema: dict[str, Any] = _tidy(raw, definitions)
    return {"$schema": _DIALECT, "title": title, **schema}


def schema_text(schema: dict[str, Any]) -> str:
    """A schema as the text of its file; fields stand in the order in which people write them."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


class _InOrder(GenerateJsonSchema):
    """Keeps the fields in the order of the model, which is that of the documentation."""

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:
        del parent_key
        return value


def _tidy(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_tidy(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if reference := node.get("$ref"):
        # What stands beside the reference belongs to the field and wins over the definition.
        definition = definitions[reference.rsplit("/", 1)[-1]]
        node = {**definition, **{key: node[key] for key in node if key != "$ref"}}
    result: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            result[key] = {name: _tidy(field, definitions) for name, field in value.items()}
        elif key in ("default", "examples", "enum", "const"):
            result[key] = value
        elif key != "title":
            result[key] = _tidy(value, definitions)
    result = _optional(result)
    first = {key: result[key] for key in ("description", "type") if key in result}
    return {**first, **result}


def _optional(node: dict[str, Any]) -> dict[str, Any]:
    """Write ``X or null`` as one schema, so that X's type stands at the field itself."""
    branches = node.get("anyOf", [])
    others = [branch for branch in branches if branch != {"type": "null"}]
    if len(others) != 1 or len(branches) != 2 or not isinstance(others[0].get("type"), str):
        return node
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    merged = {**others[0], **rest, "type": [others[0]["type"], "null"]}
    if "enum" in merged:
        merged["enum"] = [*merged["enum"], None]
    return merged
