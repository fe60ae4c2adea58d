"""Directory trees: which files they hold, and their removal while others may still write."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path

_ATTEMPTS = 20
_PAUSE_S = 0.05


def plain_files(folder: Path) -> list[str]:
    """The files below ``folder`` as paths with ``/``, sorted. Links aren't allowed there."""
    found: list[str] = []
    for parent, folders, names in os.walk(folder):
        links = [name for name in (*folders, *names) if Path(parent, name).is_symlink()]
        assert not links, f"symbolic links among the outputs of a stage: {links} in {parent}"
        found += [Path(parent, name).relative_to(folder).as_posix() for name in names]
    return sorted(found)


def remove_tree(path: Path) -> None:
    """Remove a directory tree that may be gone, or that a dying process may still write to.

    Raises:
        OSError: if it can't be removed.
    """
    for _ in range(_ATTEMPTS):
        if _is_removed(path):
            return
        time.sleep(_PAUSE_S)
    shutil.rmtree(path)


def _is_removed(path: Path) -> bool:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return not path.exists()
    except OSError as error:
        # Somebody made a file in it after its listing was read.
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True
