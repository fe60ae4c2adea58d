"""Finding a recipe by name or path, and reading it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgec import resources, suggest, yamlfile
from edgec.errors import UsageError
from edgec.recipe.generic import GenericRecipe
from edgec.recipe.names import names_in
from edgec.recipe.overrides import apply_overrides
from edgec.recipe.schema import Recipe
from edgec.recipe.synthetic import synthetic_overrides
from edgec.validation.validate import validate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.yamlfile import Document

_SUFFIXES = (".yaml", ".yml")


GENERIC = "generic"
"""The ``kind`` of recipes that :class:`GenericRecipe` describes."""


@dataclass(frozen=True)
class Loaded:
    """A recipe of either kind and where it came from.

    Attributes:
        recipe: the checked recipe, with overrides applied.
        path: the file, as it was given.
        base: absolute path of the folder that relative paths in the recipe start from.
        overrides: the ``key=value`` texts as given.
        document: the values and where each was written.
    """

    recipe: Recipe | GenericRecipe
    path: Path
    base: Path
    overrides: tuple[str, ...]
    document: Document = field(repr=False, compare=False)


@dataclass(frozen=True)
class LoadedRecipe(Loaded):
    """The recipe of a decoder."""

    recipe: Recipe


@dataclass(frozen=True)
class LoadedGeneric(Loaded):
    """The recipe of a generic model."""

    recipe: GenericRecipe


def load_recipe(
    path: Path, overrides: Sequence[str] = (), *, synthetic: bool = False
) -> LoadedRecipe:
    """Read and check the recipe of a decoder; see :func:`load_any_recipe`.

    Raises:
        UsageError: the same, or it is the recipe of a generic model.
    """
    loaded = load_any_recipe(path, overrides, synthetic=synthetic)
    if not isinstance(loaded, LoadedRecipe):
        raise UsageError(
            "this needs a decoder of text, and the recipe's model is a generic one",
            where=f"{loaded.document.place(('kind',))}: kind",
            remedy="name the recipe of a decoder; edgec plan and edgec build take this one too",
        )
    return loaded


def load_any_recipe(
    path: Path, overrides: Sequence[str] = (), *, synthetic: bool = False
) -> LoadedRecipe | LoadedGeneric:
    """Read and check a recipe of either kind.

    Args:
        path: the YAML file; messages name it as given here.
        overrides: ``dotted.path=value`` texts, applied in order before the check.
        synthetic: build with random weights; what that changes stands before ``overrides``.

    Raises:
        UsageError: the file or an override can't be accepted; all problems in one message.
    """
    written = yamlfile.load(path)
    generic = written.data.get("kind") == GENERIC
    model = GenericRecipe if generic else Recipe
    document = apply_overrides(written, overrides, model)
    if synthetic and (first := synthetic_overrides(document.data, path)):
        # Those of the user come after, except the source, which they are about.
        rest = [text for text in overrides if not text.startswith("model.source=")]
        overrides = (*first, *rest)
        document = apply_overrides(written, overrides, model)
    base, given = path.absolute().parent, tuple(overrides)
    if generic:
        checked = validate(GenericRecipe, document)
        return LoadedGeneric(checked, path, base, given, document)
    return LoadedRecipe(validate(Recipe, document), path, base, given, document)


def list_recipes() -> list[str]:
    """The names of the recipes that come with edgec, sorted."""
    return names_in(resources.folder("recipes"), ".yaml")


def find_recipe(name_or_path: str) -> Path:
    """The file of a recipe given by path, or by name if it comes with edgec.

    Text that ends in ``.yaml`` or ``.yml`` or holds a path separator is a path.

    Raises:
        UsageError: there is no such recipe.
    """
    path = Path(name_or_path)
    if path.suffix in _SUFFIXES or "/" in name_or_path or "\\" in name_or_path:
        return _existing(path)
    known = list_recipes()
    if name_or_path in known:
        return resources.folder("recipes") / f"{name_or_path}.yaml"
    raise UsageError(
        "there is no recipe of this name",
        where=name_or_path or "''",
        remedy=_remedy(name_or_path, known),
    )


def _existing(path: Path) -> Path:
    if "\0" not in str(path) and path.is_file():
        return path
    if "\0" not in str(path) and path.is_dir():
        what = "this is a folder, not a recipe"
    else:
        what = "there is no such file"
    nearby = []
    if path.parent.is_dir():
        nearby = [str(file) for file in sorted(path.parent.glob("*.y*ml"))]
    close = suggest.close_names(str(path), nearby)
    known = list_recipes()
    if close:
        remedy = f"did you mean {suggest.listing(close, last='or')}?"
    elif path.stem in known:
        remedy = f"the recipe that comes with edgec is called {path.stem}, without a path"
    else:
        remedy = f"check the path, or name one that comes with edgec: {suggest.listing(known)}"
    raise UsageError(what, where=str(path), remedy=remedy)


def _remedy(name: str, known: list[str]) -> str:
    if close := suggest.close_names(name, known):
        return f"did you mean {suggest.listing(close, last='or')}?"
    with_edgec = f"name one that comes with edgec ({suggest.listing(known)}) or " if known else ""
    return f"{with_edgec}give the path of a YAML file"
