"""Metadata of one architecture in a GGUF file, with their types checked."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgec.checkpoints.gguf.values import show
from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

BESIDE = "put the model's config.json beside the file"
"""What to do where metadata don't describe a model."""


class Fields:
    """Reads metadata by their names without the architecture's.

    Args:
        metadata: of the file.
        prefix: ``"llama."``.
        where: the file's name for error messages.
    """

    def __init__(self, metadata: Mapping[str, Any], prefix: str, where: str) -> None:
        self.metadata = metadata
        self.prefix = prefix
        self.where = where

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number; positive where there is no default."""
        value = self._value(key, default)
        if type(value) is not int or not (0 if default is not None else 1) <= value < 1 << 31:
            raise self.refuse(key, value, "a positive whole number")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite positive number."""
        value = self._value(key, default)
        if type(value) not in (int, float) or not math.isfinite(value) or value <= 0:
            raise self.refuse(key, value, "a positive number")
        return float(value)

    def flag(self, key: str) -> bool:
        """Yes or no; no where it is missing."""
        value = self._value(key, default=False)
        if type(value) is not bool:
            raise self.refuse(key, value, "true or false")
        return value

    def _value(self, key: str, default: Any) -> Any:
        value = self.metadata.get(self.prefix + key, default)
        if value is None:
            raise CheckpointError(
                f"metadata {self.prefix}{key} is missing", where=self.where, remedy=BESIDE
            )
        return value

    def refuse(self, key: str, value: Any, wanted: str) -> CheckpointError:
        """An error about one key."""
        return CheckpointError(
            f"metadata {self.prefix}{key} is {show(value)}, not {wanted}",
            where=self.where,
            remedy=BESIDE,
        )
