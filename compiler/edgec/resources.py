"""Where the recipes, targets and models that come with edgec are.

In a checkout they stand at the top level (``recipes/``, ``targets/``), where people edit them;
in an installed wheel the same folders lie beside this file as package data.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    """The data folder ``name`` (``"recipes"`` or ``"targets"``) of this installation."""
    checkout = _PACKAGE.parent.parent / name
    if (_PACKAGE.parent.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    return _PACKAGE / "data" / name
