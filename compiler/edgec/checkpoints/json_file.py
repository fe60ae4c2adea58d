"""Reading the small JSON files that describe a model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

# The index of the largest published models has a few megabytes.
_MAX_SIZE = 64 << 20


def read_json_object(path: Path, *, missing: str) -> dict[str, Any]:
    """Read a file that must hold one JSON object.

    Args:
        path: the file.
        missing: the remedy if there is no such file.

    Raises:
        CheckpointError: the file is missing, unreadable, too large, or holds something else.
    """
    where = str(path)
    try:
        # Looked at before it is opened: opening a pipe would wait for a writer.
        if path.exists() and not path.is_file():
            raise CheckpointError(
                "is not a file", where=where, remedy="put a JSON file in its place"
            )
        with path.open("rb") as file:
            raw = file.read(_MAX_SIZE + 1)
    except FileNotFoundError as error:
        raise CheckpointError("there is no such file", where=where, remedy=missing) from error
    except OSError as error:
        raise CheckpointError(
            f"can't be read ({error.strerror})", where=where, remedy="check its permissions"
        ) from error
    if len(raw) > _MAX_SIZE:
        raise CheckpointError(
            f"has more than {_MAX_SIZE:,} bytes, which no such file needs",
            where=where,
            remedy="download it again",
        )
    value = _parse(raw, where)
    if not isinstance(value, dict):
        raise CheckpointError(
            f"holds a JSON {_kind(value)} where an object belongs",
            where=where,
            remedy="download it again",
        )
    return value


def _parse(raw: bytes, where: str) -> Any:
    if raw.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            "is a Git LFS pointer, not the file it stands for",
            where=where,
            remedy="fetch the file with: git lfs pull",
        )
    try:
        # A byte order mark, which some editors write, does no harm.
        return json.loads(raw.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"is not valid JSON ({error.msg})",
            where=f"{where}:{error.lineno}:{error.colno}",
            remedy="correct it or download it again",
        ) from error
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"is not UTF-8 text (byte {error.start})", where=where, remedy="download it again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"is JSON that can't be read ({error})", where=where, remedy="download it again"
        ) from error


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", list: "list"}
    return kinds[type(value)]
