"""Looking things up in a pydantic model by the path that a YAML file uses."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from edgec.yamlfile import KeyPath


@dataclass(frozen=True)
class Spot:
    """What a path leads to.

    Attributes:
        type: the type there, without ``None`` and ``Annotated``.
        field: the closest field above or at the path; None at the root.
    """

    type: Any
    field: FieldInfo | None = None

    @property
    def model(self) -> type[BaseModel] | None:
        """The model whose fields stand here, if it is a mapping of known fields."""
        return self.type if _is_model(self.type) else None

    @property
    def is_list(self) -> bool:
        """Whether a list of values stands here."""
        return get_origin(self.type) is tuple

    @property
    def is_mapping(self) -> bool:
        """Whether a mapping of fields or of free names stands here."""
        return self.model is not None or get_origin(self.type) in (dict, Mapping)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values that are accepted here, if they can be listed."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()


def names(model: type[BaseModel]) -> list[str]:
    """The names of a model's fields as YAML files write them, in order."""
    return list(_by_alias(model))


def find(model: type[BaseModel], path: KeyPath) -> Spot | None:
    """What ``path`` leads to from ``model``, or None if there is no such field."""
    spot = Spot(model)
    for key in path:
        step = _step(spot, key)
        if step is None:
            return None
        spot = step
    return spot


def places(model: type[BaseModel], name: str) -> list[KeyPath]:
    """Every path, outside of lists, at which a field called ``name`` stands."""
    return [path for path in _walk(model, ()) if path[-1] == name]


def _step(spot: Spot, key: str | int) -> Spot | None:
    if spot.model is not None:
        field = _by_alias(spot.model).get(str(key))
        return Spot(_bare(field.annotation), field) if field is not None else None
    if spot.is_list and isinstance(key, int):
        return Spot(_bare(get_args(spot.type)[0]), spot.field)
    if get_origin(spot.type) in (dict, Mapping):
        return Spot(_bare(get_args(spot.type)[1]), spot.field)
    return None


def _walk(model: type[BaseModel], path: KeyPath) -> Iterator[KeyPath]:
    for name, field in _by_alias(model).items():
        yield (*path, name)
        inner = _bare(field.annotation)
        if _is_model(inner):
            yield from _walk(inner, (*path, name))


def _by_alias(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _bare(annotation: Any) -> Any:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _bare(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return _bare(next(arg for arg in get_args(annotation) if arg is not type(None)))
    return annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
