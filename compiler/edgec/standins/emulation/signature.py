"""What the text of a kernel says of its arguments."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_DEPTH = {"(": 1, "[": 1, "<": 1, ")": -1, "]": -1, ">": -1}


def read_only_handles(text: str, name: str, arg_types: Sequence[str]) -> frozenset[int]:
    """The positions of buffers that the kernel can't write to, because it declares them const.

    Args:
        text: in OpenCL C, MSL or CUDA; each writes ``const T* name`` or ``T const* name``.
        name: of the kernel in the text.
        arg_types: of the kernel; the n-th pointer in the text is the n-th handle.
    """
    return _handles(r"\b(const|constant|__constant)\b", text, name, arg_types)


def index_handles(text: str, name: str, arg_types: Sequence[str]) -> frozenset[int]:
    """The positions of buffers of signed integers, which may say where the kernel reads and writes.

    Args:
        text: as in :func:`read_only_handles`, and so are the others. Packed weights are unsigned.
        name: of the kernel in the text.
        arg_types: of the kernel.
    """
    return _handles(r"\b(int|int32_t|int64_t|long)\b", text, name, arg_types)


def _handles(word: str, text: str, name: str, arg_types: Sequence[str]) -> frozenset[int]:
    pointers = [part for part in _parameters(text, name) if "*" in part]
    handles = [index for index, kind in enumerate(arg_types) if kind == "handle"]
    return frozenset(
        index
        for index, parameter in zip(handles, pointers, strict=False)
        if re.search(word, parameter.partition("*")[0])
    )


def _parameters(text: str, name: str) -> list[str]:
    found = re.search(rf"\b{re.escape(name)}\s*\(", text)
    if not found:
        return []
    parts: list[str] = []
    depth, start = 0, found.end()
    for position in range(found.end(), len(text)):
        letter = text[position]
        if letter == ")" and depth == 0:
            return [*parts, text[start:position]]
        if letter == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
        depth += _DEPTH.get(letter, 0)
    return []
