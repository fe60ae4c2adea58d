"""One result in the store: the directory, and the record of what it was made from.

An entry's directory holds ``out/`` (what the stage wrote), ``stage.json`` (what it was made from,
and the output files with sizes and sha256) and ``log.txt``.

Durability: a rename is enough against a killed process. Against a power cut ``stage.json`` is
synced, the outputs aren't (gigabytes that can be made again): an output that the cut left short
is found by its size when the entry is looked up, and the stage runs again.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.files import pretty_json, sha256_file
from edgec.pipeline.stage import StageIdentity
from edgec.pipeline.trees import plain_files

if TYPE_CHECKING:
    from pathlib import Path

RECORD = "stage.json"
LOG = "log.txt"
OUT = "out"
_SCHEMA = "edgec.stage/v1"
_HASH_THREADS = 4


@dataclass(frozen=True)
class Entry:
    """One result in the store.

    Attributes:
        identity: what it was made from.
        digest: the sha256 that names it, 64 hex digits.
        path: its directory; the outputs are in ``out``.
        seconds: wall-clock time that the stage took.
        bytes: size of the outputs.
        created: when it was made, ISO 8601 in UTC.
        last_used: when it was made or last hit, seconds since the epoch.
        files: output file to its size in bytes and sha256.
    """

    identity: StageIdentity
    digest: str
    path: Path
    seconds: float
    bytes: int
    created: str
    last_used: float
    files: dict[str, tuple[int, str]]

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.identity.name

    @property
    def out(self) -> Path:
        """The directory with the stage's outputs."""
        return self.path / OUT

    def has_all_files(self) -> bool:
        """Whether every output is there and has its size; a look that costs next to nothing.

        Raises:
            OSError: if the directory can't be read.
        """
        try:
            return self.out.is_dir() and all(
                (self.out / name).stat().st_size == size for name, (size, _) in self.files.items()
            )
        except FileNotFoundError:
            return False

    def problems(self) -> list[str]:
        """What is wrong with the outputs, one line each; reads all of them.

        Raises:
            OSError: if the directory can't be read.
        """
        present = _describe(self.out)
        missing = [f"{name} is missing" for name in self.files if name not in present]
        extra = [f"{name} does not belong there" for name in present if name not in self.files]
        changed = [
            f"{name} was changed"
            for name, description in self.files.items()
            if present.get(name, description) != description
        ]
        return sorted(missing + extra + changed)


def write_record(path: Path, identity: StageIdentity, seconds: float) -> None:
    """Describe the outputs in ``path`` by a ``stage.json`` that survives a power cut.

    Raises:
        OSError: if it can't be written.
    """
    files = _describe(path / OUT)
    record = identity.to_json() | {
        "schema": _SCHEMA,
        "digest": identity.digest,
        "seconds": round(seconds, 3),
        "bytes": sum(size for size, _ in files.values()),
        "created": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "files": files,
    }
    with (path / RECORD).open("w", encoding="utf-8") as file:
        file.write(pretty_json(record))
        file.flush()
        os.fsync(file.fileno())


def read_entry(path: Path) -> Entry | None:
    """The entry in directory ``path``; None if there is none, or its record is damaged.

    Raises:
        OSError: if the directory can't be read.
    """
    record = path / RECORD
    try:
        data: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        return Entry(
            identity=StageIdentity.from_json(data),
            digest=data["digest"],
            path=path,
            seconds=data["seconds"],
            bytes=data["bytes"],
            created=data["created"],
            last_used=record.stat().st_mtime,
            files={name: (size, sha256) for name, (size, sha256) in data["files"].items()},
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # cut short by a power failure: made again when it is needed


def _describe(folder: Path) -> dict[str, tuple[int, str]]:
    names = list(plain_files(folder))
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        sums = list(pool.map(lambda name: sha256_file(folder / name), names))
    return {
        name: ((folder / name).stat().st_size, sha256)
        for name, sha256 in zip(names, sums, strict=True)
    }
