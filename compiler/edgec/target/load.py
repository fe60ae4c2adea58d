"""From the files of ``targets/`` to one target with everything that it inherits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec import resources, suggest, yamlfile
from edgec.errors import UsageError
from edgec.target import host
from edgec.target.schema import HOST, Profile, Target
from edgec.validation.validate import validate, without_nulls

if TYPE_CHECKING:
    from edgec.yamlfile import Document

_SUFFIX = ".yaml"
_NEEDED = ("platform", "tvm", "layout", "standin")
_OWN = ("schema", "extends", "abstract")  # not inherited


def list_targets(*, abstract: bool = False) -> list[str]:
    """The names of the targets that can be built for, sorted; ``host`` is not among them.

    Args:
        abstract: list also the profiles that only serve to be extended.
    """
    names = _names()
    return names if abstract else [name for name in names if not load_profile(name).abstract]


def load_target(name: str) -> Target:
    """The target of this name; ``host`` is the best one for this machine.

    Raises:
        UsageError: there is no such target, it is abstract, or its files can't be accepted.
        ToolchainError: ``host`` is asked for and no target fits this machine.
    """
    target = load_profile(resolve_host() if name == HOST else name)
    if target.abstract:
        remedy = f"build for one of {suggest.listing([*list_targets(), HOST], last='or')}"
        raise UsageError("this target is abstract, others extend it", where=name, remedy=remedy)
    return target


def load_profile(name: str) -> Target:
    """Like :func:`load_target` for one profile, which may be abstract; ``host`` isn't one.

    What an abstract profile leaves open is empty.

    Raises:
        UsageError: there is no such profile, or its files can't be accepted.
    """
    if name not in _names():
        raise UsageError(
            "there is no target of this name",
            where=name or "''",
            remedy=suggest.instead_of(name, [HOST, *_names()], noun="targets"),
        )
    return _resolved(_chain(name))


def resolve_host() -> str:
    """The name of the target that suits this machine best.

    That is the CPU target of this machine's architecture whose features are all present, and
    among several the one that uses most.

    Raises:
        ToolchainError: no target fits, or the CPU's features can't be found out.
    """
    return host.best_for_this_machine([load_profile(name) for name in list_targets()])


def _names() -> list[str]:
    return sorted(path.stem for path in resources.folder("targets").glob(f"*{_SUFFIX}"))


def _chain(name: str) -> list[Document]:
    """The documents that a profile is made of, from its base to itself, each one checked."""
    chain: list[Document] = []
    seen: list[str] = []
    next_name: str | None = name
    while next_name is not None:
        document = _document(next_name)
        chain.insert(0, document)
        seen.append(next_name)
        next_name = validate(Profile, document).extends
        if next_name in seen:
            raise UsageError(
                f"extends: the profiles extend each other in a circle, "
                f"{' -> '.join([*seen[seen.index(next_name) :], next_name])}",
                where=document.place(("extends",)),
                remedy="let one of them extend nothing",
            )
        if next_name is not None and next_name not in _names():
            raise UsageError(
                f"extends: there is no target {next_name!r}",
                where=document.place(("extends",)),
                remedy=suggest.instead_of(next_name, _names(), noun="targets"),
            )
    return chain


def _document(name: str) -> Document:
    path = resources.folder("targets") / f"{name}{_SUFFIX}"
    document = yamlfile.load(path, name=_shown(path))
    said = document.data.get("name")
    if isinstance(said, str) and said != name:
        raise UsageError(
            f"name: the file is called {name}{_SUFFIX} and says {said[:80]!r}",
            where=document.place(("name",)),
            remedy=f"write 'name: {name}', or rename the file",
        )
    return document


def _shown(path: Path) -> str:
    """The path as a person in the current folder would write it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _resolved(chain: list[Document]) -> Target:
    merged: dict[str, Any] = {}
    features: set[str] = set()
    for document in chain:
        own = {key: value for key, value in document.data.items() if key not in _OWN}
        merged = _merge(merged, own)
        features.update(document.data.get("cpu_features") or ())
    leaf = chain[-1]
    abstract = bool(leaf.data.get("abstract"))
    merged = without_nulls(merged)
    if not abstract:
        _check_complete(merged, leaf)
    return Target(
        name=merged["name"],
        lineage=tuple(document.data["name"] for document in chain),
        abstract=abstract,
        description=" ".join(merged.get("description", "").split()),
        platform=merged.get("platform", ""),
        tvm=merged.get("tvm", {}),
        vector_bits=merged.get("vector_bits"),
        cpu_features=tuple(sorted(features)),
        layout=merged.get("layout", ""),
        standin=merged.get("standin", ""),
        standin_cpu=merged.get("standin_cpu"),
        activations=merged.get("activations"),
        library=merged.get("library", {}),
        limits=merged.get("limits", {}),
    )


def _check_complete(merged: dict[str, Any], leaf: Document) -> None:
    missing = [field for field in _NEEDED if not merged.get(field)]
    if not missing and "kind" not in merged["tvm"]:
        missing = ["tvm.kind"]
    if missing:
        raise UsageError(
            f"{suggest.listing(missing)} given neither here nor in a profile that this extends",
            where=leaf.place(()),
            remedy="add what is missing, or extend a profile that has it",
        )


def _merge(base: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """JSON merge patch (RFC 7396): mappings merge, null takes away, all else replaces."""
    merged = dict(base)
    for key, value in child.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            inherited = merged.get(key)
            merged[key] = _merge(inherited if isinstance(inherited, dict) else {}, value)
        else:
            merged[key] = value
    return merged
