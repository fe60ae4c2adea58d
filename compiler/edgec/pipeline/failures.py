"""Failures of the machinery in the user's words: disks, locks, dead processes and their logs."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from typing import TYPE_CHECKING

from edgec.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TAIL_LINES = 15
_TAIL_BYTES = 64 << 10
_TAIL_COLUMNS = 300

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}


@contextlib.contextmanager
def storing(root: Path) -> Iterator[None]:
    """Within it, an ``OSError`` is the cache's and becomes a ``CacheError``."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, root) from error


def storage_error(error: OSError, root: Path) -> CacheError:
    """The ``CacheError`` for an ``OSError`` met while using the cache at ``root``."""
    if is_disk_full(error):
        return CacheError(
            "there is no space left on the disk of the cache",
            where=str(root),
            remedy="free some space (`edgec cache gc` removes old entries) or set EDGEC_CACHE to"
            " a folder on another disk",
        )
    reason = error.strerror or str(error)
    if is_not_writable(error):
        place = os.fsdecode(error.filename) if error.filename else str(root)
        return CacheError(
            f"the cache can't be written: {reason}",
            where=place,
            remedy="set EDGEC_CACHE to a folder that you may write to",
        )
    if error.errno in _NO_LOCKS:
        return CacheError(
            f"the file system of the cache has no file locks: {reason}",
            where=str(root),
            remedy="set EDGEC_CACHE to a folder on a local disk",
        )
    return CacheError(
        f"the cache can't be used: {error}",
        where=str(root),
        remedy="check the disk, or set EDGEC_CACHE to another folder",
    )


def is_disk_full(error: OSError) -> bool:
    """Whether the disk, or this user's share of it, is full."""
    return error.errno in _FULL


def is_not_writable(error: OSError) -> bool:
    """Whether writing is forbidden, by permissions or by a read-only file system."""
    return error.errno in _NOT_WRITABLE


def describe_exit(returncode: int) -> str:
    """How a process ended, from ``Popen.returncode``: ``"was killed by SIGSEGV"``."""
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    hint = " (was the machine out of memory?)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"


def log_remedy(log: Path | None) -> str:
    """The advice to read ``log``, with its last lines; for a log that was lost, to try again."""
    if log is None:
        return "build again to see whether it repeats"
    lines = tail(log)
    if not lines:
        return f"see whether it repeats; its log {log} is empty"
    return f"read its log {log}, which ends:\n" + "\n".join(f"  {line}" for line in lines)


def tail(log: Path) -> list[str]:
    """The last lines of a log that aren't blank, cut to a sensible width."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = [line.rstrip()[:_TAIL_COLUMNS] for line in text.splitlines()]
    return [line for line in lines if line][-_TAIL_LINES:]
