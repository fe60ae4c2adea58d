"""The files of a package before they are written: bytes made here, or copies from artifacts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgec.files import pretty_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any


@dataclass(frozen=True)
class Entry:
    """One file.

    Attributes:
        nbytes: its size.
        sha256: of its bytes.
        data: its bytes, unless they are in ``source``.
        source: the file to copy.
        executable: whether it is run.
    """

    nbytes: int
    sha256: str
    data: bytes | None = None
    source: Path | None = None
    executable: bool = False


@dataclass
class Content:
    """Files by their path in the package, parts joined with ``/``."""

    entries: dict[str, Entry] = field(default_factory=dict)

    def add(self, path: str, data: bytes | str, *, executable: bool = False) -> None:
        """Put a file made here in."""
        raw = data.encode() if isinstance(data, str) else data
        digest = hashlib.sha256(raw).hexdigest()
        self._put(path, Entry(len(raw), digest, data=raw, executable=executable))

    def add_json(self, path: str, value: Any) -> None:
        """Put a JSON file in that people may open."""
        self.add(path, pretty_json(value))

    def add_copy(self, path: str, source: Path, nbytes: int, sha256: str) -> None:
        """Put a copy of ``source`` in, which has these many bytes and this digest."""
        self._put(path, Entry(nbytes, sha256, source=source))

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(entry.nbytes for entry in self.entries.values())

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        """Paths and entries, sorted by path."""
        yield from sorted(self.entries.items())

    def _put(self, path: str, entry: Entry) -> None:
        assert path not in self.entries, path
        self.entries[path] = entry
