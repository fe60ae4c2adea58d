"""The files that a source consists of, found without the framework that it comes from."""

from __future__ import annotations

import mmap
import re
from typing import TYPE_CHECKING

from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

# A tensor's external data in the wire format of protocol buffers: the entry with the key "location",
# and its value, a text of up to 127 bytes or, with one bit of the length in a second byte, more.
_LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f]|[\x80-\xff][\x01-\x7f])")


def source_files(path: Path) -> list[Path]:
    """A file, and those in which an ONNX file keeps its weights.

    Of a Python file only that file: what it imports isn't looked for. Files that are named and
    aren't there are left out: whoever reads the weights says so.

    Raises:
        CheckpointError: it isn't there.
    """
    if not path.is_file():
        raise CheckpointError(
            "there is no such file", where=str(path), remedy="check the path in model.source"
        )
    if path.suffix != ".onnx" or not path.stat().st_size:
        return [path]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        named = {_text(content, found) for found in _LOCATION.finditer(content)}
    beside = (path.parent / name for name in sorted(named) if name.isprintable())
    return [path, *(other for other in beside if other.is_file())]


def _text(content: mmap.mmap, found: re.Match[bytes]) -> str:
    low, *high = found.group(1)
    length = (low & 0x7F) + (high[0] << 7 if high else 0)
    return content[found.end() : found.end() + length].decode("utf-8", "replace")
