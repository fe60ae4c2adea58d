"""``-s key=value``: a recipe's fields changed from the command line."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from edgec import suggest, yamlfile
from edgec.errors import UsageError
from edgec.validation import fields
from edgec.yamlfile import Document, KeyPath, dotted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel


def apply_overrides(
    document: Document, overrides: Sequence[str], model: type[BaseModel]
) -> Document:
    """A document with fields replaced; messages about them name the option instead of a line.

    Args:
        document: the mapping to start from; it stays as it is.
        overrides: ``dotted.path=value`` each, the value in YAML. A number steps into a list; one
            past its end adds an item. ``null`` restores the default. Later ones win.
        model: the model that says which paths exist.

    Raises:
        UsageError: one of them isn't ``key=value``, names an unknown field, or isn't YAML.
    """
    data, places = copy.deepcopy(document.data), dict(document.places)
    for override in overrides:
        option = f"-s {override}"
        path, value = _read(override, option, model)
        _set(data, path, value, option)
        for place in [place for place in places if place[: len(path)] == path]:
            del places[place]
        places[path] = option
        for length in range(1, len(path)):
            places.setdefault(path[:length], option)
    return Document(document.name, data, places)


def _read(override: str, option: str, model: type[BaseModel]) -> tuple[KeyPath, Any]:
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise UsageError(
            "no field is set",
            where=option,
            remedy="write FIELD=VALUE, for example -s context.length=2048",
        )
    path = _path(key.strip(), option, model)
    try:
        return path, yamlfile.parse(text, option).data
    except UsageError as error:
        raise UsageError(error.what, where=option, remedy=error.remedy) from error


def _path(key: str, option: str, model: type[BaseModel]) -> KeyPath:
    path: KeyPath = ()
    spot = fields.Spot(model)
    for part in key.split("."):
        if spot.is_list and not (part.isascii() and part.isdecimal() and len(part) < 6):
            raise UsageError(
                f"{dotted(path)} is a list, and {part[:40]!r} isn't a position in it",
                where=option,
                remedy=f"count from 0, for example {dotted((*path, 0))}",
            )
        step = (*path, int(part) if spot.is_list else part)
        inner = fields.find(model, step)
        if inner is None:
            raise UsageError(
                f"there is no field {dotted(step)}",
                where=option,
                remedy=_remedy(model, spot, path, part),
            )
        path, spot = step, inner
    return path


def _remedy(model: type[BaseModel], spot: fields.Spot, path: KeyPath, name: str) -> str:
    if spot.model is None:
        return f"{dotted(path)} is a single value, set it with -s {dotted(path)}=VALUE"
    known = fields.names(spot.model)
    elsewhere = [dotted(place) for place in fields.places(model, name)]
    if elsewhere and not suggest.close_names(name, known):
        return f"did you mean {suggest.listing(elsewhere, last='or')}?"
    noun = f"fields of {dotted(path)}" if path else "fields"
    return suggest.instead_of(name, known, noun=noun)


def _set(data: dict[str, Any], path: KeyPath, value: Any, option: str) -> None:
    place: Any = data
    for depth, key in enumerate(path):
        if isinstance(key, int):
            place = _grown(place, path[:depth], key, option)
        elif not isinstance(place, dict):
            raise UsageError(
                f"{dotted(path[:depth])} isn't a mapping in the recipe",
                where=option,
                remedy=f"correct it there, or set all of {dotted(path[:depth])}",
            )
        if depth == len(path) - 1:
            place[key] = value
            return
        inner = place[key] if isinstance(key, int) else place.get(key)
        if inner is None:
            inner = [] if isinstance(path[depth + 1], int) else {}
            place[key] = inner
        place = inner


def _grown(items: Any, path: KeyPath, index: int, option: str) -> list[Any]:
    if not isinstance(items, list):
        raise UsageError(
            f"{dotted(path)} isn't a list in the recipe",
            where=option,
            remedy=f"correct it there, or set all of {dotted(path)}",
        )
    if index > len(items):
        last = f"its last item is {dotted((*path, len(items) - 1))}" if items else "it is empty"
        raise UsageError(
            f"{dotted(path)} has no item {index}, {last}",
            where=option,
            remedy=f"use {dotted((*path, len(items)))} to add one",
        )
    if index == len(items):
        items.append(None)
    return items
