"""Pydantic's validation errors in plain English, each with what to write instead."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from edgec import suggest
from edgec.validation import fields
from edgec.validation.types import REFUSED
from edgec.yamlfile import KeyPath, dotted

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./:@+-]*")
_NUMBER = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?")
# A number as text, perhaps with the unit that the field has anyway.
_QUOTED_NUMBER = re.compile(
    r"\s*([-+]?[0-9]+(?:\.[0-9]+)?)\s*(mi?b|s|tokens?|bits?)?\s*", re.IGNORECASE
)


def explain(error: ErrorDetails, model: type[BaseModel]) -> tuple[KeyPath, str, str]:
    """The path of the value at fault, what is wrong with it, and the remedy."""
    path: KeyPath = tuple(key for key in error["loc"] if key != "[key]")
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    if kind == REFUSED:
        return (*path, *json.loads(context["at"])), context["what"], context["remedy"]
    if kind == "extra_forbidden":
        return path, "unknown field", _unknown_field(model, path)
    spot = fields.find(model, path)
    if kind == "literal_error" and spot is not None:
        return (
            path,
            f"{shown(given)} isn't one of the accepted values",
            _choice(given, spot.choices),
        )
    example = _example(spot)
    if kind == "missing":
        return path, "this field is missing", f"add {_entry(path, example)}"
    what, remedy = _BY_KIND.get(kind, _other)(given, context)
    if not remedy:
        remedy = f"write for example {_entry(path, example)}"
    return path, what or error["msg"].lower(), remedy


def shown(value: Any) -> str:
    """A value as messages show it: text in quotes, cut after 60 characters."""
    if value is None:
        return "an empty value"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def flow(value: Any) -> str:
    """A value as one line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and not _NUMBER.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _unknown_field(model: type[BaseModel], path: KeyPath) -> str:
    *parents, name = path
    around = fields.find(model, tuple(parents))
    known = fields.names(around.model) if around is not None and around.model is not None else []
    elsewhere = fields.places(model, str(name))
    if elsewhere and not suggest.close_names(str(name), known):
        return f"move it: it belongs at {suggest.listing(map(dotted, elsewhere), last='or')}"
    return suggest.instead_of(str(name), known, noun="fields here")


def _choice(given: Any, choices: tuple[Any, ...]) -> str:
    if len(choices) == 1:
        return f"write {flow(choices[0])}"
    if given in [str(choice) for choice in choices if not isinstance(choice, str)]:
        return f"write {given}, without quotes"
    every = f"write one of {suggest.listing(map(flow, choices), last='or')}"
    close = suggest.close_names(given, map(str, choices)) if isinstance(given, str) else []
    return f"did you mean {close[0]}? ({every})" if close else every


def _example(spot: fields.Spot | None) -> Any:
    if spot is None or spot.field is None or not spot.field.examples:
        return None
    example = spot.field.examples[0]
    # The examples belong to the whole field; below a list or mapping one of its items is meant.
    if isinstance(example, list) and example and not spot.is_list:
        return example[0]
    if isinstance(example, dict) and example and not spot.is_mapping:
        return next(iter(example.values()))
    return example


def _entry(path: KeyPath, example: Any) -> str:
    last = path[-1] if path else ""
    if isinstance(last, int):
        return flow(example)
    return f"'{last}: {flow(example)}'" if example is not None else f"'{last}: ...'"


def _no_text(given: Any, _context: dict[str, Any]) -> tuple[str, str]:
    if isinstance(given, (bool, int, float)):
        kind = "true or false" if isinstance(given, bool) else "a number"
        return f"{shown(given)} is {kind}, and text is needed", f"put it in quotes: '{given}'"
    return f"{shown(given)} is given, and text is needed", ""


def _no_integer(given: Any, _context: dict[str, Any]) -> tuple[str, str]:
    what = f"{shown(given)} isn't a whole number"
    if isinstance(given, str) and (found := _QUOTED_NUMBER.fullmatch(given[:40])):
        return what, f"write {round(float(found.group(1)))}, without quotes or a unit"
    if isinstance(given, float):
        return what, f"write {round(given)}"
    return what, ""


def _no_number(given: Any, _context: dict[str, Any]) -> tuple[str, str]:
    what = f"{shown(given)} isn't a number"
    if isinstance(given, str) and (found := _QUOTED_NUMBER.fullmatch(given[:40])):
        return what, f"write {found.group(1)}, without quotes or a unit"
    return what, ""


def _no_bool(given: Any, _context: dict[str, Any]) -> tuple[str, str]:
    return f"{shown(given)} isn't true or false", "write true or false"


def _no_list(given: Any, _context: dict[str, Any]) -> tuple[str, str]:
    what = f"{shown(given)} is given, and a list is needed"
    return what, "" if isinstance(given, dict) else f"write {flow([given])}"


def _no_mapping(given: Any, _context: dict[str, Any]) -> tuple[str, str]:
    return f"{shown(given)} is given, and a mapping of fields is needed", ""


def _multiple(given: Any, context: dict[str, Any]) -> tuple[str, str]:
    step = context["multiple_of"]
    below, above = math.floor(given / step) * step, math.ceil(given / step) * step
    fitting = f"{below} or {above}" if below > 0 else str(max(above, step))
    return f"{shown(given)} is not a multiple of {step}", f"write {fitting}"


def _too_short(_given: Any, context: dict[str, Any]) -> tuple[str, str]:
    if context["min_length"] == 1:
        return "the list or text is empty", ""
    return f"fewer than {context['min_length']} are given", ""


def _too_long(_given: Any, context: dict[str, Any]) -> tuple[str, str]:
    return f"more than {context['max_length']} are given", "shorten it"


def _text_too_long(_given: Any, context: dict[str, Any]) -> tuple[str, str]:
    return f"the text is longer than {context['max_length']} characters", "shorten it"


def _bound(key: str, adjective: str, remedy: str) -> Callable[..., tuple[str, str]]:
    def message(given: Any, context: dict[str, Any]) -> tuple[str, str]:
        return f"{shown(given)} is too {adjective}", remedy.format(_number(context[key]))

    return message


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _other(_given: Any, _context: dict[str, Any]) -> tuple[str, str]:
    return "", ""


_BY_KIND: dict[str, Callable[[Any, dict[str, Any]], tuple[str, str]]] = {
    "string_type": _no_text,
    "int_type": _no_integer,
    "float_type": _no_number,
    "bool_type": _no_bool,
    "tuple_type": _no_list,
    "model_type": _no_mapping,
    "dict_type": _no_mapping,
    "multiple_of": _multiple,
    "too_short": _too_short,
    "too_long": _too_long,
    "string_too_short": _too_short,
    "string_too_long": _text_too_long,
    "greater_than": _bound("gt", "small", "write a number greater than {}"),
    "greater_than_equal": _bound("ge", "small", "write at least {}"),
    "less_than": _bound("lt", "large", "write a number less than {}"),
    "less_than_equal": _bound("le", "large", "write at most {}"),
}
