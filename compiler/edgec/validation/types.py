"""The pieces that recipe and target models are made of."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError, core_schema

if TYPE_CHECKING:
    from collections.abc import Hashable

    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue

    from edgec.yamlfile import KeyPath

REFUSED = "edgec_refused"


class Section(BaseModel):
    """A mapping of fields: unknown fields are errors, and values don't change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def refused(what: str, remedy: str, *, at: KeyPath = ()) -> PydanticCustomError:
    """The error that validators raise: what is wrong with the value, and what to do.

    Args:
        what: what is wrong, without the field's name and without a full stop.
        remedy: what to do about it, an imperative clause.
        at: path from the value that is validated to the one at fault, when it lies deeper.
    """
    return PydanticCustomError(
        REFUSED, "{what}; {remedy}", {"what": what, "remedy": remedy, "at": json.dumps(at)}
    )


@dataclass(frozen=True)
class Matches:
    """Text that a regular expression matches as a whole, explained in words.

    Attributes:
        pattern: the expression, without anchors.
        meaning: what it accepts, to follow "write".
    """

    pattern: str
    meaning: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        result = handler(schema)
        result["pattern"] = f"^(?:{self.pattern})$"
        result["patternErrorMessage"] = f"Write {self.meaning}."
        return result

    def _check(self, text: str) -> str:
        if not re.fullmatch(self.pattern, text):
            raise refused(f"{text[:80]!r} isn't accepted here", f"write {self.meaning}")
        return text


@dataclass(frozen=True)
class Unique:
    """A list in which nothing stands twice."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), "uniqueItems": True}

    def _check(self, items: tuple[Hashable, ...]) -> tuple[Hashable, ...]:
        for index, item in enumerate(items):
            if item in items[:index]:
                raise refused(f"{item!r} is listed twice", "remove one of the two", at=(index,))
        return items
