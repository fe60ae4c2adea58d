"""The cache's folder: can it be written, and is there room?"""

from __future__ import annotations

import shutil
import tempfile
from typing import TYPE_CHECKING

from edgec.cachefolder import cache_root
from edgec.diagnosis.check import Check
from edgec.errors import CacheError
from edgec.pipeline.root import check_root

if TYPE_CHECKING:
    from pathlib import Path

_GIB = 1 << 30
_COMFORTABLE = 2 * _GIB


def check_cache() -> Check:
    """Look at the folder, or at where it would be made; nothing is left behind."""
    root = cache_root()
    needed = "a folder that can be written"
    try:
        check_root(root)
        nearest = _nearest(root)
        with tempfile.TemporaryFile(dir=nearest) as file:
            file.write(b"edgec")
        free = shutil.disk_usage(nearest).free
    except CacheError as error:
        return Check("cache", "missing", f"{root}: {error.what}", needed, error.remedy)
    except OSError as error:
        return Check(
            "cache",
            "missing",
            f"{root}: can't be written ({error.strerror or error})",
            needed,
            "check permissions and free space, or set EDGEC_CACHE to another folder",
        )
    found = f"{root}, {free / _GIB:.1f} GiB free"
    if free >= _COMFORTABLE:
        return Check("cache", "ok", found)
    return Check(
        "cache",
        "warning",
        found,
        f"{_COMFORTABLE // _GIB} GiB, for models of a billion weights",
        "run: edgec cache gc, or set EDGEC_CACHE to a folder on a larger disk",
    )


def _nearest(root: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(path for path in (root, *root.parents) if path.is_dir())
