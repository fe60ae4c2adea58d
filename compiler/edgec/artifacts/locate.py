"""Find the artifact that a user means: a folder, or a recipe that was built."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgec import suggest
from edgec.artifacts.artifact import open_artifact
from edgec.artifacts.layout import MANIFEST
from edgec.errors import ToolchainError, UsageError
from edgec.recipe import find_recipe, load_any_recipe
from edgec.target import HOST, resolve_host

if TYPE_CHECKING:
    from edgec.artifacts.artifact import Artifact

_DEFAULT_ROOT = Path("artifacts")


def locate_artifact(name: str, root: Path) -> Artifact:
    """Open the artifact that ``name`` stands for.

    Args:
        name: the folder of an artifact; or a folder with a recipe's artifacts, one per target; or
            the name or path of a recipe, whose artifacts are below ``root``.
        root: folder of all artifacts.

    Raises:
        UsageError: there is no such artifact; if it can be built, the message says how.
        VerificationError: its manifest is damaged.
    """
    folder = Path(name)
    is_path = os.sep in name or name in (os.curdir, os.pardir) or folder.is_absolute()
    if folder.is_dir():
        if (folder / MANIFEST).is_file():
            return open_artifact(folder)
        if _built_in(folder) or is_path:
            return open_artifact(_choose(folder) or folder)
    if not is_path and (chosen := _choose(root / name)):
        return open_artifact(chosen)
    return _of_recipe(name, root)


def _of_recipe(name: str, root: Path) -> Artifact:
    try:
        file = find_recipe(name)
    except UsageError as error:
        raise UsageError(
            "there is neither an artifact nor a recipe of this name",
            where=error.where,
            remedy=error.remedy,
        ) from error
    recipe = load_any_recipe(file).recipe.name
    chosen = _choose(root / recipe)
    if chosen is None:
        out = "" if root == _DEFAULT_ROOT else f" --out {root}"
        raise UsageError(
            f"the recipe {recipe} has not been built into this folder",
            where=str(root / recipe),
            remedy=f"run: edgec build {name}{out}",
        )
    return open_artifact(chosen)


def _choose(folder: Path) -> Path | None:
    """This machine's artifact of a recipe, else the only one; None if there is none."""
    built = _built_in(folder)
    if not built:
        return None
    try:
        host = resolve_host()
    except ToolchainError:
        host = HOST
    if host in built:
        return folder / host
    if len(built) > 1:
        raise UsageError(
            f"artifacts for several targets are there, and none for {host}",
            where=str(folder),
            remedy=f"name one of {suggest.listing((str(folder / name) for name in built), last='or')}",
        )
    return folder / built[0]


def _built_in(folder: Path) -> list[str]:
    return sorted(
        path.parent.name
        for path in folder.glob(f"*/{MANIFEST}")
        if not path.parent.name.startswith(".")
    )
