"""The sha256 of big input files, remembered between builds.

A digest is remembered for (device, inode, size, mtime, ctime), so a second build needn't read
gigabytes again. A file that changed only just now isn't remembered: within one step of the file
system's clock it could change once more without a trace. That step is two seconds at most, and where
time stamps have digits below the millisecond it is that of the kernel's timer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from edgec.errors import BuildError, CacheError
from edgec.files import canonical_json, write_atomic
from edgec.progress import Progress, Silent

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from edgec.pipeline.store import Store

_SCHEMA = "edgec.filedigests/v1"
_KEY = "filedigests"
_CHUNK = 4 << 20
_COARSE_NS, _FINE_NS = 2_000_000_000, 100_000_000
_MILLISECOND_NS = 1_000_000
_REMEMBERED = 4096
_THREADS = 4


class FileDigests:
    """Digests of files, remembered in the cache of ``store``; for any number of processes.

    A cache that can't be read or written costs time, never a wrong digest or an error.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path = store.root / f"{_KEY}.json"

    def sha256(self, path: Path) -> str:
        """The sha256 of one file's bytes, 64 hex digits.

        Raises:
            BuildError: if the file can't be read, or changes meanwhile.
        """
        return self.digests([path])[path]

    def digests(self, paths: Iterable[Path], progress: Progress | None = None) -> dict[Path, str]:
        """The sha256 of each file; those not remembered are read, several at once.

        Args:
            paths: the files.
            progress: counts the bytes that have to be read.

        Raises:
            BuildError: if a file can't be read, or changes meanwhile.
        """
        known = self._load()
        keys = {path: _key(_stat(path)) for path in paths}
        unread = [path for path, key in keys.items() if key not in known]
        if not unread:
            return {path: known[key] for path, key in keys.items()}
        listener = progress or Silent()
        listener.start(sum(_stat(path).st_size for path in unread), "bytes")
        with ThreadPoolExecutor(_THREADS) as pool:
            read = list(pool.map(lambda path: _read(path, listener), unread))
        self._remember({key: sha256 for key, sha256, is_settled in read if is_settled})
        found = dict(zip(unread, (sha256 for _, sha256, _ in read), strict=True))
        return {path: found.get(path) or known[key] for path, key in keys.items()}

    def _load(self) -> dict[str, str]:
        try:
            data: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
            return dict(data["files"]) if data["schema"] == _SCHEMA else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _remember(self, new: dict[str, str]) -> None:
        if not new:
            return
        with (
            contextlib.suppress(OSError, CacheError),
            self._store.in_use(),
            self._store.lock(_KEY).held(),
        ):
            known = self._load()
            for key in new:
                known.pop(key, None)
            kept = dict(list((known | new).items())[-_REMEMBERED:])
            # In the order of arrival, so that the oldest are the first to go.
            write_atomic(self._path, json.dumps({"schema": _SCHEMA, "files": kept}, indent=0))


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error


def _key(status: os.stat_result) -> str:
    return canonical_json(
        [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    )


def _read(path: Path, progress: Progress) -> tuple[str, str, bool]:
    """The file's key, its sha256, and whether it has been unchanged for long enough."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    try:
        with path.open("rb", buffering=0) as file:
            before = os.fstat(file.fileno())
            while count := file.readinto(buffer):
                digest.update(buffer[:count])
                progress.advance(count)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise _unreadable(path, error) from error
    if _key(before) != _key(after):
        raise BuildError(
            "the file changed while it was read",
            where=str(path),
            remedy="wait until it is completely written, then build again",
        )
    return _key(after), digest.hexdigest(), _is_settled(after, time.time_ns())


def _is_settled(status: os.stat_result, now_ns: int) -> bool:
    """Whether a change from now on would leave another time stamp."""
    # Other than the time of modification, this one can't be set to anything.
    step = _FINE_NS if status.st_ctime_ns % _MILLISECOND_NS else _COARSE_NS
    return now_ns - max(status.st_mtime_ns, status.st_ctime_ns) > step


def _unreadable(path: Path, error: OSError) -> BuildError:
    return BuildError(
        f"the file can't be read: {error.strerror}",
        where=str(path),
        remedy="check the path and its permissions",
    )
