"""Caches of tests: results of stages of their own or the whole run's, and the tools of the run."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

from edgec.cachefolder import TOOLS, cache_root
from edgec.pipeline.store import Store

if TYPE_CHECKING:
    from pathlib import Path


def cache_in(folder: Path) -> Path:
    """The cache in a test's folder, made if it isn't there.

    No stage ran in it before. Tools, such as the runtime for browsers and packages of Node.js, are
    the same for all tests, and made once: they lie in the cache that is named where the test begins.
    """
    tools = cache_root() / TOOLS
    tools.mkdir(parents=True, exist_ok=True)
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    # Two commands of a test may begin at once.
    with contextlib.suppress(FileExistsError):
        (cache / TOOLS).symlink_to(tools.resolve(), target_is_directory=True)
    return cache


def lent_cache_in(folder: Path) -> Path:
    """The cache in a test's folder, with what other tests have put into that of the whole run.

    For tests that ask what is left in a cache, and need one that isn't empty.
    """
    lent, store = Store(cache_root()), Store(cache_in(folder))
    store.prepare()
    # Results appear whole, by a rename, and aren't written to afterwards.
    shutil.copytree(lent.stages, store.stages, copy_function=_link, dirs_exist_ok=True)
    return store.root


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another file system
        shutil.copy2(source, target)
