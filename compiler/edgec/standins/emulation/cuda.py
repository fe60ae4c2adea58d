"""CUDA kernels: the text that TVM emits, compiled for this CPU against ``runtime/cuda``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgec.errors import BuildError
from edgec.standins.emulation import shims
from edgec.standins.emulation.dialect import RUNTIME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgec.libraries.device import DeviceModule, KernelInfo

SUBGROUP_WIDTH = 32
_HEADERS = RUNTIME / "cuda"
_KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\((?P<bounds>\d+)[^)]*\)\s*)?'
    r"(?P<name>\w+)\s*\("
)
_DYNAMIC = re.compile(r"extern\s+__shared__\s+[^;\[]*?(?P<type>\w+)\s+(?P<name>\w+)\s*\[\s*\]\s*;")
_STATIC = re.compile(
    r"\b__shared__\s+(?P<align>(?:alignas|__align__)\(\d+\))?\s*(?P<type>[\w ]+?)\s+"
    r"(?P<name>\w+)\s*\[(?P<length>\d+)\]\s*;"
)
_BUILT_IN = (
    "  [[maybe_unused]] const emu::Dim threadIdx = emu::local_id(), blockIdx = emu::group_id(),"
    " blockDim = emu::group_size(), gridDim = emu::grid_size();"
)
_TYPES = {"handle": "void*", "bool": "bool", "float32": "float", "float64": "double"}
_INTEGER = re.compile(r"u?int(?:8|16|32|64)")


def translate(device: DeviceModule, name: str) -> str:
    """The C++ of one kernel; see :class:`edgec.standins.emulation.dialect.Dialect`.

    Raises:
        BuildError: the module doesn't hold the kernel, or holds machine code instead of text.
    """
    kernel = device.functions[name]
    where = f"kernel {kernel.name}"
    if device.format != "cuda":
        raise BuildError(
            f"the module holds {device.format}, which only a CUDA GPU executes",
            where=where,
            remedy="give the emulator the CUDA text it was compiled from",
        )
    text, bounds = _only(device.code_of(name).decode(), kernel.name)
    return f'#include "cuda.h"\n{text}\n{_entry(kernel, bounds)}'


def sources() -> Sequence[Path]:
    """See :class:`edgec.standins.emulation.dialect.Dialect`."""
    return shims.sources(_HEADERS)


def build(text: str, name: str, target: Path, *, checked: bool) -> None:
    """See :class:`edgec.standins.emulation.dialect.Dialect`."""
    shims.build(text, name, target, _HEADERS, checked=checked)


def _only(text: str, name: str) -> tuple[str, int]:
    """The text without other kernels, and the threads per block that this one was made for.

    The built-in variables (``threadIdx``, ...) become variables of the kernel.
    """
    parts, at, bounds, found = [], 0, 0, False
    for match in _KERNEL.finditer(text):
        end, body = _end_of(text, match.end() - 1)
        parts.append(text[at : match.start()])
        at = end
        if body is None or match["name"] != name:
            continue
        found, bounds = True, int(match["bounds"] or 0)
        parts.append(f"{text[match.start() : body + 1]}\n{_BUILT_IN}")
        parts.append(_shared_memory(text[body + 1 : end]))
    if not found:
        raise BuildError("the module's text doesn't hold it", where=f"kernel {name}")
    return "".join(parts) + text[at:], bounds


def _shared_memory(body: str) -> str:
    """Replace a kernel's shared variables.

    Dynamic shared memory becomes a pointer to the launch's. Static arrays become bytes that are
    looked at as elements: shared memory runs no constructors, though TVM's half4 has one.
    """
    body = _DYNAMIC.sub(
        r"\g<type>* const \g<name> = static_cast<\g<type>*>(emu::dynamic_shared());", body
    )
    return _STATIC.sub(
        r"__shared__ \g<align> unsigned char \g<name>_bytes[sizeof(\g<type>[\g<length>])]; "
        r"auto& \g<name> = reinterpret_cast<\g<type>(&)[\g<length>]>(\g<name>_bytes);",
        body,
    )


def _end_of(text: str, opening: int) -> tuple[int, int | None]:
    """The end of a declaration or definition whose parameters begin here; where its body begins."""
    at = _matching(text, opening)
    while text[at].isspace():
        at += 1
    if text[at] == "{":
        return _matching(text, at), at
    return at + 1, None


def _matching(text: str, opening: int) -> int:
    """Behind the bracket that closes the one here. TVM's text has no strings with brackets."""
    depth = 0
    for match in re.compile(r"[(){}]").finditer(text, opening):
        depth += 1 if match[0] in "({" else -1
        if depth == 0:
            return match.end()
    raise BuildError("brackets don't match", where="the CUDA module's text")


def _entry(kernel: KernelInfo, bounds: int) -> str:
    """The body of one work-item: the call of the kernel."""
    types = ", ".join(_type(type_, kernel.name) for type_ in kernel.arg_types)
    check = f"  shim::within_launch_bounds({bounds});\n" if bounds else ""
    call = f"  shim::call<{types}>({kernel.name}, arguments);"
    return f"EMU_KERNEL({kernel.name}) {{\n{check}{call}\n}}\n"


def _type(type_: str, name: str) -> str:
    if _INTEGER.fullmatch(type_):
        return f"{type_}_t"
    if type_ not in _TYPES:
        raise BuildError(f"a scalar of type {type_} can't be passed", where=f"kernel {name}")
    return _TYPES[type_]
