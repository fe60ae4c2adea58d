"""Write a package into a folder, whole or not at all, and never over what others have put there.

A package carries a manifest, ``edgec-package.json``: the digest of every file, and one of itself.
A folder is replaced only if it holds what such a manifest lists, and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from edgec.errors import BuildError
from edgec.files import digest_json, pretty_json, replace_directory, sha256_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.packaging.content import Content, Entry
    from edgec.progress import Progress

MANIFEST = "edgec-package.json"
SCHEMA = "edgec.package/v1"
_CHUNK = 4 << 20
_ELSEWHERE = "name another folder with --output, or move this one away"


def package_manifest(content: Content, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``edgec-package.json``.

    Args:
        content: all other files.
        facts: what else it says.
    """
    manifest = {
        "schema": SCHEMA,
        **facts,
        "files": {path: {"bytes": entry.nbytes, "sha256": entry.sha256} for path, entry in content},
    }
    return {**manifest, "digest": digest_json(manifest)}


def check_replaceable(place: Path) -> bool:
    """Check that a package may be written to ``place``.

    Returns:
        Whether there is a package that will be replaced.

    Raises:
        BuildError: there is something that edgec package has not written.
    """
    if not place.exists() and not place.is_symlink():
        return False
    if not place.is_dir() or place.is_symlink():
        raise BuildError("is not a folder", where=str(place), remedy=_ELSEWHERE)
    present = {
        path.relative_to(place).as_posix(): path
        for path in sorted(place.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }
    if not present:
        return False
    listed = _listed(place)
    for name, path in present.items():
        if name != MANIFEST and not _is_listed(path, listed.get(name)):
            what = (
                "has been changed since" if name in listed else "was not written by edgec package"
            )
            raise BuildError(
                f"the folder is not replaced, because {name} {what}",
                where=str(place),
                remedy=_ELSEWHERE,
            )
    return True


def write_package(
    place: Path, content: Content, manifest: Mapping[str, Any], progress: Progress
) -> None:
    """Write a package; one that is there is replaced.

    Args:
        place: the package's folder.
        content: its files, without the manifest.
        manifest: from :func:`package_manifest`.
        progress: told about every byte.

    Raises:
        BuildError: the folder holds other things, can't be written, or the disk is full; or a
            file of an artifact has changed while it was copied.
    """
    check_replaceable(place)
    progress.start(content.nbytes, "bytes")
    temporary: Path | None = None
    # "." and "a/.." have no name to put another beside.
    target = Path(os.path.abspath(place))
    absent = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        temporary = Path(
            tempfile.mkdtemp(prefix=f"{_prefix(target)}{os.getpid()}-", dir=target.parent)
        )
        temporary.chmod(0o755)
        for path, entry in content:
            _write(temporary / path, entry, progress)
        (temporary / MANIFEST).write_text(pretty_json(manifest))
        for file in sorted(temporary.rglob("*")):
            file.chmod(0o755 if file.is_dir() or _runs(content, temporary, file) else 0o644)
        check_replaceable(place)
        replace_directory(temporary, target)
    except OSError as error:
        raise BuildError(
            f"the package can't be written: {error.strerror or error}",
            where=str(place if error.filename2 else error.filename or place),
            remedy="check permissions and free space, or name another folder with --output",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            if temporary is not None and temporary.exists():
                shutil.rmtree(temporary)
            for folder in absent:  # a failure leaves no empty folders behind
                folder.rmdir()


def _runs(content: Content, root: Path, file: Path) -> bool:
    entry = content.entries.get(file.relative_to(root).as_posix())
    return entry is not None and entry.executable


def _write(path: Path, entry: Entry, progress: Progress) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if entry.data is not None:
        path.write_bytes(entry.data)
        progress.advance(entry.nbytes)
        return
    assert entry.source is not None
    digest = hashlib.sha256()
    with entry.source.open("rb") as source, path.open("wb") as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
            progress.advance(len(chunk))
    if digest.hexdigest() != entry.sha256:
        raise BuildError(
            "the file's bytes differ from the manifest's sha256",
            where=str(entry.source),
            remedy="build the artifact again with edgec build",
        )


def _listed(place: Path) -> dict[str, Any]:
    """The files that the folder's manifest lists; none if it isn't one of ours."""
    try:
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        digest = manifest.pop("digest")
        known = manifest["schema"] == SCHEMA and digest_json(manifest) == digest
        return dict(manifest["files"]) if known else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _is_listed(path: Path, entry: Mapping[str, Any] | None) -> bool:
    if entry is None or path.is_symlink() or not path.is_file():
        return False
    same_size: bool = path.stat().st_size == entry["bytes"]
    return same_size and sha256_file(path) == entry["sha256"]


def _prefix(place: Path) -> str:
    return f".{place.name}.tmp-"


def _sweep(place: Path) -> None:
    """Remove what killed runs left beside the package; runs that live keep theirs."""
    pattern = re.compile(re.escape(_prefix(place)) + r"(\d+)-")
    for left in place.parent.iterdir():
        found = pattern.match(left.name)
        if found and not psutil.pid_exists(int(found[1])):
            shutil.rmtree(left, ignore_errors=True)
