"""Read fields of a ``config.json`` with errors that name the field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def language_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the fields of the language model at the top, as older files have them.

    Newer ones of models that take more than text have these in a section, ``text_config``. Where
    both have a field it is the whole model's that counts.

    Args:
        config: content of any ``config.json``; without that section it stays as it is.
    """
    inner = config.get("text_config")
    if not isinstance(inner, dict):
        return dict(config)
    outer = {name: value for name, value in config.items() if name != "text_config"}
    return {**inner, **{name: value for name, value in outer.items() if value is not None}}


class ConfigReader:
    """Typed access to a config; every failure is an ``EdgecError`` with the field's name.

    Args:
        config: content of ``config.json``, or of a section of it.
        section: how messages call that section, with a dot behind; empty for the whole file.
    """

    def __init__(self, config: Mapping[str, Any], section: str = "") -> None:
        self._config = config
        self._section = section

    def positive(self, name: str, default: int | None = None) -> int:
        """A positive whole number; ``null`` counts as absent."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise self._error(name, f"{value!r} is not a positive whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A positive number."""
        value = self._get(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
            raise self._error(name, f"{value!r} is not a positive number")
        return float(value)

    def cap(self, name: str, default: float | None) -> float | None:
        """A positive number, or ``null``, which here is not the same as an absent field."""
        if name in self._config and self._config[name] is None:
            return None
        return None if default is None and name not in self._config else self.number(name, default)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """``true`` or ``false``."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._error(name, f"{value!r} is neither true nor false")
        return value

    def only(self, name: str, supported: Sequence[Any], default: Any) -> None:
        """Refuse a value that the family has no code for."""
        value = self._get(name, default)
        if value not in supported:
            raise UnsupportedModelError(
                f"{value!r} is not supported",
                where=f"config.json: {self._section}{name}",
                remedy=f"supported: {', '.join(map(str, supported))}",
            )

    def require(self, condition: bool, name: str, what: str) -> None:
        """Refuse an impossible combination."""
        if not condition:
            raise self._error(name, what)

    def _get(self, name: str, default: Any) -> Any:
        value = self._config.get(name)
        if value is None:
            value = default
        if value is None:
            raise self._error(name, "the field is missing")
        return value

    def _error(self, name: str, what: str) -> CheckpointError:
        return CheckpointError(
            what,
            where=f"config.json: {self._section}{name}",
            remedy="take config.json from the model's original repository",
        )
