"""The JSON Schema of target profiles, for editors."""

from __future__ import annotations

from typing import Any

from edgec.target.schema import Profile
from edgec.validation.editorschema import editor_schema


def target_json_schema() -> dict[str, Any]:
    """JSON Schema (draft 7) of target files; ``docs/schemas/target.schema.json`` holds it."""
    return editor_schema(Profile, title="edgec target profile")
