"""What is in a compiled library, and what its kernels take of the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.errors import EdgecError, UsageError
from edgec.libraries import ar
from edgec.libraries.facts import facts
from edgec.libraries.objects import is_object
from edgec.libraries.open import open_libraries

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgec.artifacts.artifact import Artifact

_SUFFIXES = (".so", ".a", ".tar", ".dylib", ".o")
_TAR, _TAR_AT = b"ustar", 257


@dataclass(frozen=True)
class LibraryReport:
    """One library.

    Attributes:
        path: of its file.
        facts: see :func:`edgec.libraries.facts.facts`; None if it can't be read.
        problem: why it can't be read; None if it can.
        kernels: the hungriest kernel in each respect; empty if nothing is known of them.
    """

    path: Path
    facts: Mapping[str, Any] | None
    problem: EdgecError | None = None
    kernels: tuple[Largest, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "path": str(self.path),
            "facts": None if self.facts is None else dict(self.facts),
            "problem": None if self.problem is None else self.problem.to_json(),
            "largest": {item.what: item.to_json() for item in self.kernels},
        }


@dataclass(frozen=True)
class Largest:
    """The most that any kernel takes of one thing.

    Attributes:
        what: the name of the field: ``"threads"``, ``"shared_memory_bytes"``, ....
        value: how much.
        kernel: which one takes it, without the model's name before it.
        limit: how much the device has, as its profile says; None if it doesn't.
    """

    what: str
    value: int
    kernel: str
    limit: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the name."""
        return {"value": self.value, "kernel": self.kernel, "limit": self.limit}


def is_library(path: Path) -> bool:
    """Whether a file is meant to be a library: by its name, or by how it begins.

    Raises:
        UsageError: it can't be read.
    """
    if path.suffix in _SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise UsageError(
            f"can't be read: {error.strerror or error}",
            where=str(path),
            remedy="check the file and its permissions",
        ) from error
    return is_object(head) or head.startswith(ar.MAGIC) or head[_TAR_AT:].startswith(_TAR)


def inspect_libraries(path: Path) -> list[LibraryReport]:
    """Report on every library in a file, at least one; an archive of an app can hold several.

    Raises:
        UsageError: it can't be read.
        VerificationError: it is damaged, or holds no library.
    """
    return [LibraryReport(path, facts(library)) for library in open_libraries(path)]


def inspect_artifact(artifact: Artifact) -> LibraryReport:
    """Report on the library of an artifact that is loaded and verified; damage is no error."""
    manifest = artifact.manifest
    try:
        (library,) = open_libraries(artifact.library)
        found, problem = facts(library), None
    except EdgecError as error:
        found, problem = None, error
    # Every kernel's name begins with the model's.
    begin = f"{manifest.get('model_lib', '')}_"
    needs = {
        name.removeprefix(begin): item
        for name, item in manifest["kernels"].get("device_kernels", {}).items()
    }
    return LibraryReport(
        artifact.library, found, problem, _largest(needs, manifest.get("limits", {}))
    )


def _largest(
    needs: Mapping[str, Mapping[str, int | None]], limits: Mapping[str, int]
) -> tuple[Largest, ...]:
    """The kernel that needs most, for each thing that kernels need."""
    found = []
    for field in dict.fromkeys(field for item in needs.values() for field in item):
        values = {kernel: value for kernel, item in needs.items() if (value := item.get(field))}
        if values:
            kernel = max(values, key=lambda name: values[name])
            found.append(Largest(field, values[kernel], kernel, limits.get(f"max_{field}")))
    return tuple(found)
