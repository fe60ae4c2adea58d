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
    pointers = [part for part in _parameters(text, name) if "*" in part]
    handles = [index for index, kind in enumerate(arg_types) if kind == "handle"]
    return frozenset(
        index
        for index, parameter in zip(handles, pointers, strict=False)
        if re.search(r"\b(const|constant|__constant)\b", parameter.partition("*")[0])
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
