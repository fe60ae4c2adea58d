"""From a YAML document to a pydantic model, with every problem reported at its place."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from edgec.errors import UsageError
from edgec.validation import messages
from edgec.yamlfile import KeyPath, dotted

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from edgec.yamlfile import Document

_Model = TypeVar("_Model", bound=BaseModel)
_MOST = 20


def validate(model: type[_Model], document: Document) -> _Model:
    """Check a document against a model.

    A field without a value (``length:`` or ``length: null``) counts as not given. Types are
    strict: text isn't a number and 1.0 isn't a whole one.

    Raises:
        UsageError: all problems in one message, one line each:
            ``file:line:column: field: what; remedy``.
    """
    try:
        # JSON's strict mode is the one in which a list makes a tuple and a mapping a model.
        return model.model_validate_json(json.dumps(without_nulls(document.data)), strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems = [messages.explain(item, model) for item in details if not _echoes(item)]
        raise _combined(problems, document) from error


def without_nulls(value: Any) -> Any:
    """``value`` without the fields whose value is null, at any depth."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def _echoes(error: ErrorDetails) -> bool:
    """Whether the error only follows from others: a list too short without its bad items."""
    return error["type"] == "too_short" and len(error["input"]) >= error["ctx"]["min_length"]


def _combined(problems: list[tuple[KeyPath, str, str]], document: Document) -> UsageError:
    errors = [
        UsageError(f"{dotted(path)}: {what}", where=document.place(path), remedy=remedy)
        for path, what, remedy in problems
    ]
    if len(errors) == 1:
        return errors[0]
    lines = [f"  {error}" for error in errors[:_MOST]]
    if len(errors) > _MOST:
        lines.append(f"  and {len(errors) - _MOST} more")
    return UsageError(
        "\n".join([f"{len(errors)} fields can't be accepted as written", *lines]),
        where=document.name,
    )
