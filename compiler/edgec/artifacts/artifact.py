"""Open an artifact and check that it is whole."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.artifacts.interface import INTERFACE, read_interface
from edgec.artifacts.layout import (
    CHAT_CONFIG,
    GOLDEN,
    LIBRARY_FOLDER,
    MANIFEST,
    MANIFEST_SCHEMA,
    MODEL_FOLDER,
    REFERENCE_KERNELS,
    REPORT,
)
from edgec.artifacts.manifest_check import check_manifest
from edgec.errors import UsageError, VerificationError
from edgec.files import sha256_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgec.artifacts.interface import ModelInterface

GENERIC = "generic"
_REBUILD = "build it again with edgec build"


@dataclass(frozen=True)
class Artifact:
    """An artifact's folder and its manifest."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def library(self) -> Path:
        """The model library."""
        return self.folder / LIBRARY_FOLDER / str(self.manifest["library"])

    @property
    def model(self) -> Path:
        """The weight folder, as the MLC engines take it."""
        return self.folder / MODEL_FOLDER

    @property
    def golden(self) -> Path:
        """Golden inputs and outputs; may be absent."""
        return self.folder / GOLDEN

    @property
    def reference_kernels(self) -> Path:
        """What each kernel computes; absent where the library runs on the target itself."""
        return self.folder / REFERENCE_KERNELS

    @property
    def report(self) -> dict[str, Any]:
        """Quality and verification figures."""
        return _read(self.folder / REPORT)

    @property
    def interface(self) -> ModelInterface | None:
        """What the function of a generic model takes and returns; None for a decoder.

        Raises:
            VerificationError: the file is missing or damaged.
        """
        generic = self.manifest["recipe"].get("kind") == GENERIC
        return read_interface(self.folder / INTERFACE) if generic else None

    @property
    def chat_config(self) -> dict[str, Any]:
        """What the engines read first."""
        return _read(self.model / CHAT_CONFIG)

    def check_before_loading(self) -> None:
        """Check the sizes of all files, and the bytes of the library: a damaged one would crash.

        Raises:
            VerificationError: a file is missing or cut short, or the library has other bytes.
        """
        entries: dict[str, dict[str, Any]] = self.manifest["files"]
        for name, entry in entries.items():
            _check_size(self.folder / name, entry["bytes"])
        library = entries.get(self.library.relative_to(self.folder).as_posix())
        if library is None or sha256_file(self.library) != library["sha256"]:
            raise _other_bytes(self.library)

    def check_files(self, digest: Callable[[Path], str] = sha256_file) -> None:
        """Compare every file with the manifest.

        Args:
            digest: gives a file's sha256; one with a cache makes this fast.

        Raises:
            VerificationError: a file is missing, has other bytes, or isn't in the manifest.
        """
        listed: dict[str, dict[str, Any]] = self.manifest["files"]
        present = {
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_file()
        } - {MANIFEST}
        for name in sorted(listed.keys() | present):
            path = self.folder / name
            if name not in listed:
                raise VerificationError(
                    "the file is not in the manifest",
                    where=str(path),
                    remedy=f"remove it, or {_REBUILD}",
                )
            expected = listed[name]
            _check_size(path, expected["bytes"])
            if digest(path) != expected["sha256"]:
                raise _other_bytes(path)


def open_artifact(folder: Path) -> Artifact:
    """Read an artifact's manifest.

    Raises:
        UsageError: the folder isn't an artifact, or one of a newer edgec.
        VerificationError: the manifest is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(
            "the folder holds no artifact (there is no manifest.json in it)",
            where=str(folder),
            remedy="name a folder that edgec build wrote, such as artifacts/tinypy/x86-64-v4",
        )
    manifest = _read(path)
    schema = manifest.get("schema")
    if schema != MANIFEST_SCHEMA:
        raise UsageError(
            f"the manifest has schema {schema!r} and this edgec reads {MANIFEST_SCHEMA!r}",
            where=str(path),
            remedy="use the edgec that built it, or build it again",
        )
    check_manifest(manifest, path)
    return Artifact(folder, manifest)


def _other_bytes(path: Path) -> VerificationError:
    return VerificationError(
        "the file's bytes differ from the manifest's sha256", where=str(path), remedy=_REBUILD
    )


def _check_size(path: Path, expected: int) -> None:
    if not path.is_file():
        raise VerificationError("the file is missing", where=str(path), remedy=_REBUILD)
    size = path.stat().st_size
    if size != expected:
        raise VerificationError(
            f"the file has {size} bytes and the manifest says {expected}",
            where=str(path),
            remedy=_REBUILD,
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VerificationError(
            f"can't be read: {error}", where=str(path), remedy=_REBUILD
        ) from error
    if not isinstance(data, dict):
        raise VerificationError("is not a JSON object", where=str(path), remedy=_REBUILD)
    return data
