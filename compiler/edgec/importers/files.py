"""The files that a source consists of, found without the framework that it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path


def source_files(path: Path) -> list[Path]:
    """A file, and those beside an ONNX file in which it keeps its weights.

    Of a Python file only that file: what it imports isn't looked for.

    Raises:
        CheckpointError: it isn't there.
    """
    if not path.is_file():
        raise CheckpointError(
            "there is no such file", where=str(path), remedy="check the path in model.source"
        )
    if path.suffix != ".onnx":
        return [path]
    # An external file is named in the model, as text that stands somewhere in it.
    content = path.read_bytes()
    beside = sorted(other for other in path.parent.rglob("*") if other.is_file() and other != path)
    named = [
        other for other in beside if other.relative_to(path.parent).as_posix().encode() in content
    ]
    return [path, *named]
