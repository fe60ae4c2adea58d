"""All models' objects in one static library, as MLC's bindings link it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.errors import UsageError, VerificationError
from edgec.libraries.ar import Archive, build_archive
from edgec.libraries.elf import ElfSymbol
from edgec.libraries.macho import MachO, MachOSymbol
from edgec.libraries.members import Member

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgec.libraries.ar import Flavour
    from edgec.libraries.objects import Image, ObjectFile
    from edgec.packaging.model import PackagedModel


def merge(models: Sequence[PackagedModel]) -> bytes:
    """One archive with the objects of all models, each found by its own symbols.

    Raises:
        UsageError: two models define the same symbol, which no linker accepts.
        VerificationError: a model isn't found in the result.
    """
    owners: dict[str, PackagedModel] = {}
    members = []
    for model in models:
        for item in model.library.objects:
            # Every library has a lib0.o, and linkers name members in their messages.
            begin = "" if item.name.startswith(model.library.prefix) else model.library.prefix
            members.append(Member(f"{begin}{item.name}", item.data))
            for symbol in strong_symbols(item.image):
                other = owners.setdefault(symbol, model)
                if other is not model:
                    raise _defined_twice(symbol, other, model)
    flavour: Flavour = "darwin" if models[0].library.object_format == "macho" else "gnu"
    archive = build_archive(members, flavour)
    _check(archive, models)
    return archive


def anchors(models: Sequence[PackagedModel]) -> list[str]:
    """For every object one symbol, as C sees it, that makes a linker take the object in.

    Raises:
        VerificationError: an object has none.
    """
    return [_anchor(model, item) for model in models for item in model.library.objects]


def system_version(models: Sequence[PackagedModel]) -> str:
    """The oldest system on which the objects run, as the newest of them says: ``"16.0"``.

    Raises:
        VerificationError: an object isn't for iOS devices, or doesn't say for which version.
    """
    found = []
    for model in models:
        for item in model.library.objects:
            image = item.image
            if not isinstance(image, MachO) or image.platform != "ios" or not image.minimum_version:
                raise VerificationError(
                    f"{item.name} is not for iOS devices",
                    where=str(model.library.path),
                    remedy="build the artifact again with edgec build",
                )
            found.append(image.minimum_version)
    return max(found, key=lambda version: [int(part) for part in version.split(".")])


def strong_symbols(image: Image) -> Iterator[str]:
    """The symbols that an object defines and that no other may define."""
    for symbol in image.symbols:
        if symbol.external and symbol.defined and symbol.name and not _is_weak(symbol):
            yield symbol.name


def _is_weak(symbol: ElfSymbol | MachOSymbol) -> bool:
    return symbol.binding != "global" if isinstance(symbol, ElfSymbol) else symbol.weak


def _anchor(model: PackagedModel, item: ObjectFile) -> str:
    found = min((s for s in strong_symbols(item.image) if s in item.image.exported), default=None)
    if found is None:
        raise VerificationError(
            f"{item.name} defines no symbol by which it could be linked",
            where=str(model.library.path),
            remedy="build the artifact again with edgec build",
        )
    return found


def _defined_twice(symbol: str, first: PackagedModel, second: PackagedModel) -> UsageError:
    return UsageError(
        f"{first.model_lib} and {second.model_lib} both define {symbol}, so one app can't have both",
        where=str(second.library.path),
        remedy="give the recipes different names and build them again",
    )


def _check(archive: bytes, models: Sequence[PackagedModel]) -> None:
    """What MLC's packager checks: engines find a library by the symbol of its blob."""
    index = dict(Archive.parse(archive, "the merged library").index)
    names = {name.removeprefix("_") for name in index} | index.keys()
    for model in models:
        if model.blob_symbol not in names:
            raise VerificationError(
                f"the merged library has no symbol {model.blob_symbol}, by which engines find it",
                where=str(model.library.path),
                remedy="build the artifact again with edgec build",
            )
