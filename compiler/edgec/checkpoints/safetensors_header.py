"""The header of a safetensors file, read as if its author meant harm.

The format (https://huggingface.co/docs/safetensors): eight bytes with the header's length N as a
little-endian unsigned integer, N bytes of JSON, then the data. The JSON maps each tensor's name
to ``{"dtype", "shape", "data_offsets": [begin, end]}``, offsets counted from the start of the
data. Tensors may not overlap and leave no gap. ``__metadata__`` may map strings to strings.
"""

from __future__ import annotations

import json
import math
import reprlib
from dataclasses import dataclass
from typing import Any

from edgec.checkpoints.dtypes import BITS
from edgec.errors import CheckpointError

PREFIX = 8
# The format's own limit.
MAX_HEADER = 100_000_000
# JSON values in one header, each of which costs about a hundred bytes as a Python object: enough
# for a million tensors, and a bound on the memory that a hostile header can take.
_MAX_VALUES = 8_000_000
_MAX_NAME = 1024
# numpy's limit before version 2.
_MAX_AXES = 32
_MAX_BYTES = 1 << 62
_DAMAGED = "the file is damaged, download it again"
# Short whatever the value: cuts long strings and lists and deep nesting, escapes control characters.
_show = reprlib.repr


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies.

    Attributes:
        dtype: a key of ``BITS``.
        shape: its dimensions.
        begin: offset of its first byte in the file.
        end: offset of the byte after its last.
    """

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def header_length(prefix: bytes, size: int, where: str) -> int:
    """Read the length field that starts a file.

    Args:
        prefix: the first bytes of the file, up to eight.
        size: the size of the file in bytes.
        where: the file's name for error messages.

    Raises:
        CheckpointError: the file is too short, or this is no safetensors file.
    """
    if prefix.startswith(b"version "):
        raise CheckpointError(
            "is a Git LFS pointer, not the weights it stands for",
            where=where,
            remedy="fetch the file with: git lfs pull",
        )
    if size < PREFIX:
        raise CheckpointError(
            f"has {size} bytes, too few for a safetensors header",
            where=where,
            remedy=_DAMAGED,
        )
    length = int.from_bytes(prefix, "little")
    if length > MAX_HEADER:
        raise CheckpointError(
            f"its header claims {length:,} bytes, more than the {MAX_HEADER:,} the format allows: "
            "this is not a safetensors file",
            where=where,
            remedy="convert the model to safetensors or download it again",
        )
    if length > size - PREFIX:
        raise CheckpointError(
            f"the file has {size:,} bytes but its header alone promises {PREFIX + length:,}",
            where=where,
            remedy="the download was cut off, download it again",
        )
    return length


def parse_header(raw: bytes, size: int, where: str) -> dict[str, Entry]:
    """Parse a header and check it against the size of its file.

    Args:
        raw: the JSON, without the length field.
        size: the size of the whole file in bytes.
        where: the file's name for error messages.

    Returns:
        The tensors by name, in the order of their data.

    Raises:
        CheckpointError: the header breaks a rule of the format.
    """
    document = _parse_json(raw, where)
    metadata = document.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CheckpointError(
            "its __metadata__ is not a map from strings to strings", where=where, remedy=_DAMAGED
        )
    start = PREFIX + len(raw)
    entries = [(name, _entry(name, value, start, where)) for name, value in document.items()]
    entries.sort(key=lambda item: (item[1].begin, item[1].end))
    _check_layout(entries, start, size, where)
    return dict(entries)


def _parse_json(raw: bytes, where: str) -> dict[str, Any]:
    if sum(raw.count(mark) for mark in (b"[", b"{", b",")) > _MAX_VALUES:
        raise CheckpointError(
            f"its header has more than {_MAX_VALUES:,} values", where=where, remedy=_DAMAGED
        )
    try:
        document = json.loads(raw.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"its header is not UTF-8 text (byte {error.start})", where=where, remedy=_DAMAGED
        ) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"its header is not valid JSON ({error})", where=where, remedy=_DAMAGED
        ) from error
    if not isinstance(document, dict):
        raise CheckpointError("its header is JSON but not an object", where=where, remedy=_DAMAGED)
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) == len(pairs):
        return result
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise ValueError(f"the name {_show(name)} stands in it twice")
        seen.add(name)
    raise AssertionError("fewer keys than pairs without a duplicate")


def _entry(name: str, value: Any, start: int, where: str) -> Entry:
    # The name goes to terminals and file names of caches: no control characters, no surrogates.
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        raise CheckpointError(
            f"a tensor is called {_show(name)}; names are 1 to {_MAX_NAME} printable characters",
            where=where,
            remedy=_DAMAGED,
        )

    def refuse(what: str) -> CheckpointError:
        return CheckpointError(f"tensor {name}: {what}", where=where, remedy=_DAMAGED)

    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
        raise refuse("its entry in the header is not an object with dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise refuse(f"unknown dtype {_show(dtype)}")
    if not _naturals(shape) or len(shape) > _MAX_AXES:
        raise refuse(f"shape {_show(shape)} is not a list of up to {_MAX_AXES} sizes")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise refuse(f"data_offsets {_show(offsets)} are not [begin, end]")
    bits = BITS[dtype] * math.prod(shape)
    # The product without the zeros, as an empty tensor may not have absurd axes either.
    if BITS[dtype] * math.prod(axis for axis in shape if axis) > 8 * _MAX_BYTES:
        raise refuse(f"shape {_show(shape)} is larger than any memory")
    if bits % 8 or bits // 8 != offsets[1] - offsets[0]:
        raise refuse(
            f"shape {shape} of {dtype} takes {bits / 8:,.10g} bytes but its data_offsets span "
            f"{offsets[1] - offsets[0]:,}"
        )
    return Entry(dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(number) is int and 0 <= number <= _MAX_BYTES for number in value
    )


def _check_layout(entries: list[tuple[str, Entry]], start: int, size: int, where: str) -> None:
    position = start
    previous = "the header"
    for name, entry in entries:
        if entry.begin < position:
            raise CheckpointError(
                f"tensor {name}: its data overlaps that of {previous} by "
                f"{position - entry.begin:,} bytes",
                where=where,
                remedy=_DAMAGED,
            )
        if entry.begin > position:
            raise CheckpointError(
                f"tensor {name}: {entry.begin - position:,} bytes between {previous} and it "
                "belong to no tensor",
                where=where,
                remedy=_DAMAGED,
            )
        position, previous = entry.end, name
    if position > size:
        raise CheckpointError(
            f"the file has {size:,} bytes but its header promises {position:,}",
            where=where,
            remedy="the download was cut off, download it again",
        )
    if position < size:
        raise CheckpointError(
            f"the file has {size:,} bytes but its header accounts for {position:,} only",
            where=where,
            remedy=_DAMAGED,
        )
