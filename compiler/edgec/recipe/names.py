"""Fields whose values are names of files: modules, templates and targets.

The files are listed, never imported, so that a recipe loads fast and a new module or file is
found without being registered.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import core_schema

from edgec import resources, suggest
from edgec.validation.types import refused

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler

_PACKAGE = Path(__file__).resolve().parent.parent


def package_folder(name: str) -> Path:
    """A folder of the edgec package by its path from the package's root."""
    return _PACKAGE / name


def names_in(folder: Path, suffix: str) -> list[str]:
    """The names that a folder offers, sorted; names that start with ``_`` are private.

    Args:
        folder: where to look; a folder that doesn't exist offers nothing.
        suffix: ``".py"`` for modules (packages count too) or that of the data files.
    """
    if not folder.is_dir():
        return []
    found = {path.stem for path in folder.glob(f"*{suffix}")}
    if suffix == ".py":
        found |= {path.parent.name for path in folder.glob("*/__init__.py")}
    return sorted(name for name in found if not name.startswith("_"))


def check_name(name: str, known: list[str], noun: str) -> str:
    """Return ``name`` if it is known.

    Args:
        name: what the recipe says.
        known: what exists.
        noun: what the names are, in the plural.

    Raises:
        pydantic_core.PydanticCustomError: it isn't.
    """
    if name not in known:
        raise refused(
            f"{name[:80]!r} isn't one of the {noun}", suggest.instead_of(name, known, noun=noun)
        )
    return name


@dataclass(frozen=True)
class ModuleOf:
    """A name of a module or data file in a folder of the edgec package.

    Attributes:
        folder: its path from the package's root.
        suffix: ``".py"``, or that of the data files.
        noun: what the names are, in the plural.
        trusted_without_folder: accept every name when the folder is missing, because whoever
            loads the file reports a damaged installation better.
    """

    folder: str
    suffix: str
    noun: str
    trusted_without_folder: bool = True

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, name: str) -> str:
        folder = package_folder(self.folder)
        if self.trusted_without_folder and not folder.is_dir():
            return name
        return check_name(name, names_in(folder, self.suffix), self.noun)


class TargetName:
    """A name of a target profile that comes with edgec, or ``host``."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, name: str) -> str:
        known = ["host", *names_in(resources.folder("targets"), ".yaml")]
        return check_name(name, known, "targets")
