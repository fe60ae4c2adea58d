"""Which build of an installed distribution this is, such as the TVM wheel.

A wheel's ``RECORD`` lists the sha256 of every file that it installed, so the digest of a 300 MB
wheel costs a few milliseconds. It is as trustworthy as the installation: a file that was edited
in place afterwards isn't noticed. An editable installation has no such list, so its project's
Python files and libraries are hashed.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

from edgec.errors import ToolchainError
from edgec.files import digest_json, sha256_file

# Written by the installer, not by the wheel: these differ between installations of one wheel.
_INSTALLERS_FILES = {"INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}
_CODE_SUFFIXES = {".py", ".so", ".dylib"}


@dataclass(frozen=True)
class Installed:
    """An installed distribution: its version, and a sha256 over its files (64 hex digits)."""

    version: str
    sha256: str


@functools.lru_cache
def installed(name: str) -> Installed:
    """What is installed of distribution ``name``; looked up once per process.

    Raises:
        ToolchainError: if it isn't installed, or without a list of its files.
    """
    try:
        distribution = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise ToolchainError(
            "is not installed in this Python environment",
            where=name,
            remedy=f"run `pip install '{_requirement(name)}'`",
        ) from None
    project = _editable_project(distribution)
    record = distribution.read_text("RECORD")
    if project is not None:
        sha256 = _digest_project(project)
    elif record:
        sha256 = _digest_record(record)
    else:
        raise ToolchainError(
            "is installed without a list of its files (RECORD), so its build can't be identified",
            where=name,
            remedy=f"run `pip install --force-reinstall '{_requirement(name)}'`",
        )
    return Installed(distribution.version, sha256)


def _requirement(name: str) -> str:
    """The requirement on ``name`` in edgec's own metadata, without its marker, else the name."""
    try:
        requirements = metadata.requires("edgec") or []
    except metadata.PackageNotFoundError:
        return name
    for requirement in requirements:
        text = requirement.partition(";")[0].strip()
        if _normal(re.split(r"[^A-Za-z0-9._-]", text)[0]) == _normal(name):
            return text
    return name


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _digest_record(record: str) -> str:
    """The digest of the files that came with the wheel, whoever installed it wherever."""
    files: dict[str, str] = {}
    for row in csv.reader(record.splitlines()):
        path, sha256 = row[0], row[1] if len(row) > 1 else ""
        # Scripts above site-packages begin with the path of this environment's interpreter.
        generated = path.startswith("..") or path.endswith(".pyc")
        if sha256 and not generated and Path(path).name not in _INSTALLERS_FILES:
            files[path] = sha256
    return digest_json(files)


def _editable_project(distribution: metadata.Distribution) -> Path | None:
    text = distribution.read_text("direct_url.json")
    if text is None:
        return None
    data = json.loads(text)
    if not data.get("dir_info", {}).get("editable", False):
        return None
    return Path(unquote(urlparse(data["url"]).path))


def _digest_project(project: Path) -> str:
    files: dict[str, tuple[int, str]] = {}
    for folder, folders, names in os.walk(project):
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        if "pyvenv.cfg" in names:
            folders.clear()
        for name in names:
            path = Path(folder, name)
            if path.suffix in _CODE_SUFFIXES and path.is_file():
                key = path.relative_to(project).as_posix()
                files[key] = (path.stat().st_size, sha256_file(path))
    return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
