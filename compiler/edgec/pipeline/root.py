"""The cache's folder: where it is, and that it is ours before anything is written or removed."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from edgec.cachefolder import TOOLS
from edgec.errors import CacheError
from edgec.files import pretty_json, write_atomic
from edgec.pipeline.failures import storage_error

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "edgec.store/v1"
_MARKER = "edgec-store.json"
_TAG = "CACHEDIR.TAG"
# https://bford.info/cachedir/: backup programs leave out a folder with a file that begins so.
_TAG_TEXT = """\
Signature: 8a477f597d28d172789f06886806bc55
# This folder is the cache of edgec. Everything in it can be made again.
"""


def check_root(root: Path) -> None:
    """Make sure that ``root`` is missing, empty or a store of this schema. Writes nothing.

    Raises:
        CacheError: if it is a file, holds foreign files, or belongs to another version.
    """
    try:
        names = set(os.listdir(root))
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise CacheError(
            "the cache has to be a folder, and this is a file or lies below one",
            where=str(root),
            remedy="set EDGEC_CACHE to a folder",
        ) from None
    except OSError as error:
        raise storage_error(error, root) from error
    if _MARKER in names:
        _check_marker(root / _MARKER)
    elif foreign := sorted(name for name in names if not _is_ours(name)):
        raise CacheError(
            f"the cache's folder holds files that edgec did not put there ({foreign[0]!r})",
            where=str(root),
            remedy="set EDGEC_CACHE to an empty or a new folder",
        )


def claim_root(root: Path) -> None:
    """Make the folder, and mark it as ours if it isn't yet.

    Raises:
        CacheError: as :func:`check_root` does.
        OSError: if it can't be written.
    """
    root.mkdir(parents=True, exist_ok=True)
    check_root(root)
    if not (root / _MARKER).exists():
        write_atomic(root / _MARKER, pretty_json({"schema": SCHEMA}))
    if not (root / _TAG).exists():
        write_atomic(root / _TAG, _TAG_TEXT)


def _is_ours(name: str) -> bool:
    # Tools may be compiled before the first build, and another build, or one that was killed, leaves
    # something while it marks the folder.
    return name in (_TAG, TOOLS) or name.startswith((f".{_MARKER}.", f".{_TAG}."))


def _check_marker(marker: Path) -> None:
    try:
        schema = json.loads(marker.read_text())["schema"]
    except OSError as error:
        raise storage_error(error, marker.parent) from error
    except (ValueError, KeyError, TypeError):
        raise CacheError(
            "the file that marks the folder as edgec's cache is damaged",
            where=str(marker),
            remedy="remove the folder, or set EDGEC_CACHE to another one",
        ) from None
    if schema != SCHEMA:
        raise CacheError(
            f"the cache was written by another version of edgec (schema {schema!r},"
            f" this one knows {SCHEMA!r})",
            where=str(marker.parent),
            remedy="set EDGEC_CACHE to another folder, or remove this one",
        )
