"""Metal kernels: the text that TVM emits, compiled for this CPU against ``runtime/metal``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgec.errors import BuildError
from edgec.standins.emulation import shims
from edgec.standins.emulation.dialect import RUNTIME
from edgec.standins.emulation.metaltext import rewrite

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgec.libraries.device import DeviceModule, KernelInfo

SUBGROUP_WIDTH = 32
_HEADERS = RUNTIME / "metal"
_PARAMETER = re.compile(
    r"(?P<type>.+?)\s*(?P<name>\w+)\s*\[\[\s*(?P<attribute>[^\]]+?)\s*\]\]", re.DOTALL
)
_BUFFER = re.compile(r"buffer\s*\(\s*(\d+)\s*\)")
_POSITIONS = {
    "threadgroup_position_in_grid": "emu::group_id()",
    "thread_position_in_threadgroup": "emu::local_id()",
    "threadgroups_per_grid": "emu::grid_size()",
    "threads_per_threadgroup": "emu::group_size()",
}


def translate(device: DeviceModule, name: str) -> str:
    """The C++ of one kernel; see :class:`edgec.standins.emulation.dialect.Dialect`.

    Raises:
        BuildError: the text doesn't hold the kernel, or its parameters aren't what the module's
            table says.
    """
    kernel = device.functions[name]
    if device.format != "metal":
        raise BuildError(
            f"the module holds {device.format}, which only Apple's GPUs execute",
            where=f"kernel {kernel.name}",
            remedy="give the emulator the Metal text it was compiled from",
        )
    text = device.code_of(name).decode()
    return f"{rewrite(text)}\n{_entry(text, kernel)}"


def sources() -> Sequence[Path]:
    """See :class:`edgec.standins.emulation.dialect.Dialect`."""
    return shims.sources(_HEADERS)


def build(text: str, name: str, target: Path, *, checked: bool) -> None:
    """See :class:`edgec.standins.emulation.dialect.Dialect`."""
    shims.build(text, name, target, _HEADERS, checked=checked)


def _entry(text: str, kernel: KernelInfo) -> str:
    """The body of one work-item: the call of the kernel.

    Buffers come first and have the indices 0, 1, ...; the scalars are one structure in the buffer
    after them, 8 bytes each, as TVM's runtime for Metal packs them.
    """
    where = f"kernel {kernel.name}"
    handles = [i for i, type_ in enumerate(kernel.arg_types) if type_ == "handle"]
    scalars = [i for i, type_ in enumerate(kernel.arg_types) if type_ != "handle"]
    lines, arguments, buffers = [], [], 0
    for type_, attribute in _parameters(text, kernel.name):
        index = _BUFFER.fullmatch(attribute)
        if index is None:
            if attribute not in _POSITIONS:
                raise BuildError(f"the attribute [[{attribute}]] isn't known", where=where)
            arguments.append(f"metal::position<{type_}>({_POSITIONS[attribute]})")
            continue
        if int(index[1]) != buffers:
            raise BuildError(f"buffer {index[1]} is where {buffers} is expected", where=where)
        buffers += 1
        if type_.startswith("constant ") and type_.endswith("&"):
            structure = type_.removeprefix("constant ").removesuffix("&").strip()
            slots = ", ".join(f"arguments[{i}]" for i in scalars)
            lines.append(f"  const uint64_t scalars[] = {{{slots}}};")
            lines.append(f"  static_assert(sizeof({structure}) == sizeof(scalars));")
            arguments.append(f"*(constant {structure}*)scalars")
        elif buffers <= len(handles):
            slot = handles[buffers - 1]
            arguments.append(f"({type_})emu::argument<void*>(arguments, {slot})")
    if buffers != len(handles) + bool(scalars):
        raise BuildError(
            f"it has {buffers} buffers, where the module's table names {len(handles)} "
            f"and {len(scalars)} scalars",
            where=where,
        )
    call = f"  {kernel.name}({', '.join(arguments)});"
    return "\n".join([f"EMU_KERNEL({kernel.name}) {{", *lines, call, "}", ""])


def _parameters(text: str, name: str) -> list[tuple[str, str]]:
    """Type and attribute of each parameter of the kernel."""
    head = re.search(rf"\bkernel\s+void\s+{re.escape(name)}\s*\((.*?)\)\s*\{{", text, re.DOTALL)
    if head is None:
        raise BuildError("the module's text doesn't hold it", where=f"kernel {name}")
    found = [
        (" ".join(match["type"].split()).lstrip(", "), match["attribute"])
        for match in _PARAMETER.finditer(head[1])
    ]
    if not found:
        raise BuildError("its parameters can't be read", where=f"kernel {name}")
    return found
