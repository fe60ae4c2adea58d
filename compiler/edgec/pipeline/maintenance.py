"""Cleaning the store: what killed builds left behind, and entries that are no longer wanted."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from typing import TYPE_CHECKING

from edgec.errors import CacheError
from edgec.pipeline.entry import Entry, read_entry
from edgec.pipeline.failures import storing
from edgec.pipeline.trees import remove_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgec.pipeline.store import Store


def sweep(store: Store) -> None:
    """Remove temporary directories and lock files that no living process holds.

    A store that can't be written to is left as it is: who needs to write will say so.
    """
    with contextlib.suppress(OSError):
        for directory in _children(store.tmp):
            # Whoever uses a temporary directory holds the lock that its name begins with.
            lock = store.lock(directory.name.partition(".")[0])
            if lock.try_acquire():
                with contextlib.closing(lock), contextlib.suppress(OSError):
                    remove_tree(directory)
        for file in _children(store.locks):
            lock = store.lock(file.name.removesuffix(".lock"))
            if lock.try_acquire():
                lock.close()


def gc(
    store: Store,
    *,
    older_than_s: float | None = None,
    max_bytes: int | None = None,
    keep_last: int = 0,
    dry_run: bool = False,
) -> list[Entry]:
    """Remove entries that weren't used for long, then the least recently used above a size.

    Args:
        store: the store to clean.
        older_than_s: remove entries last used longer ago than this, in seconds.
        max_bytes: remove the least recently used entries until the outputs' sizes add up to less.
        keep_last: of each stage, never remove this many most recently used entries.
        dry_run: only say what would be removed.

    Returns:
        The removed entries, the least recently used first.

    Raises:
        CacheError: if a build is running, or the store can't be changed.
    """
    if dry_run:
        return _unwanted(store.entries(), older_than_s, max_bytes, keep_last)
    store.prepare()
    with storing(store.root), _alone(store):
        sweep(store)
        _remove_damaged(store)
        unwanted = _unwanted(store.entries(), older_than_s, max_bytes, keep_last)
        for entry in unwanted:
            store.remove(entry.path)
        if older_than_s is not None:
            _remove_logs(store, older_than_s)
    return unwanted


def verify(store: Store, *, remove: bool = False) -> dict[Path, list[str]]:
    """Read all results and compare them with the digests taken when they were made.

    Args:
        store: the store to check.
        remove: whether to remove what is damaged.

    Returns:
        What is wrong with each damaged entry, by its directory.

    Raises:
        CacheError: if the store can't be read; to remove, if a build is running.
    """
    if not remove:
        with storing(store.root):
            return _damaged(store)
    store.prepare()
    with storing(store.root), _alone(store):
        damaged = _damaged(store)
        for path in damaged:
            store.remove(path)
    return damaged


def _damaged(store: Store) -> dict[Path, list[str]]:
    found = {}
    for path in sorted(store.stages.glob("*/*")):
        entry = read_entry(path)
        problems = ["its record is missing or damaged"] if entry is None else entry.problems()
        if problems:
            found[path] = problems
    return found


def _unwanted(
    entries: list[Entry], older_than_s: float | None, max_bytes: int | None, keep_last: int
) -> list[Entry]:
    newer: Counter[str] = Counter()
    candidates = []
    for entry in entries:
        if newer[entry.name] >= keep_last:
            candidates.append(entry)
        newer[entry.name] += 1
    size = sum(entry.bytes for entry in entries)
    oldest = time.time() - (older_than_s or 0)
    unwanted = []
    for entry in reversed(candidates):
        is_old = older_than_s is not None and entry.last_used <= oldest
        if is_old or (max_bytes is not None and size > max_bytes):
            unwanted.append(entry)
            size -= entry.bytes
    return unwanted


@contextlib.contextmanager
def _alone(store: Store) -> Iterator[None]:
    lock = store.alone()
    if not lock.try_acquire():
        raise CacheError(
            "a build is using the cache",
            where=str(store.root),
            remedy="clean it when no build is running",
        )
    with contextlib.closing(lock):
        yield


def _remove_damaged(store: Store) -> None:
    for path in store.stages.glob("*/*"):
        entry = read_entry(path)
        if entry is None or not entry.has_all_files():
            store.remove(path)


def _remove_logs(store: Store, older_than_s: float) -> None:
    oldest = time.time() - older_than_s
    for log in _children(store.logs):
        if log.stat().st_mtime <= oldest:
            log.unlink(missing_ok=True)


def _children(folder: Path) -> list[Path]:
    return [folder / name for name in sorted(os.listdir(folder))]
