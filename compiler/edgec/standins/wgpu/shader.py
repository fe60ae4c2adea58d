"""What a kernel's WGSL asks of a device, read from the text that TVM writes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.errors import BuildError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.libraries.device import KernelInfo

_ENABLE = re.compile(r"^\s*enable\s+([\w\s,]+);", re.MULTILINE)
_BUFFER = re.compile(
    r"@group\(0\)\s*@binding\((\d+)\)\s*var<storage\s*,\s*(read|read_write)>\s*(\w+)"
)
_UNIFORM = re.compile(r"@group\(0\)\s*@binding\((\d+)\)\s*var<uniform>\s*\w+\s*:\s*(\w+)")
_GROUP = re.compile(r"@workgroup_size\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?(?:,\s*(\d+)\s*)?,?\s*\)")
_SHARED = re.compile(r"var<workgroup>\s*(\w+)\s*:\s*([^;]+);")
_ARRAY = re.compile(r"array<(.+),\s*(\d+)[iu]?>")
_VECTOR = re.compile(r"vec([234])<(\w+)>")
_MEMBER = re.compile(r"(\w+)\s*:\s*(\w+)")
_SCALARS = {"f32": 4, "i32": 4, "u32": 4, "bool": 4, "f16": 2}
_ATOMIC = re.compile(r"atomic<(\w+)>")
# Types of a kernel's scalars by those of the struct, as the runtimes for browsers write them.
_SCALAR_TYPES = {"i32": "int", "u32": "uint", "f32": "float"}
_FROM_RUNTIME = "packGridDimX"


@dataclass(frozen=True)
class Shader:
    """One kernel.

    Attributes:
        text: its WGSL.
        features: that it enables: ``"f16"``, ....
        written: whether it may write each of its buffers, in the order of their bindings.
        scalars: types of its other arguments in WGSL, in order.
        group: work-items of a work-group in x, y, z.
        group_bytes: memory of a work-group.
    """

    text: str
    features: tuple[str, ...]
    written: tuple[bool, ...]
    scalars: tuple[str, ...]
    group: tuple[int, int, int]
    group_bytes: int

    @staticmethod
    def parse(text: str, info: KernelInfo) -> Shader:
        """Read a kernel.

        Args:
            text: its WGSL.
            info: how it is called.

        Raises:
            VerificationError: the text and the way it is called don't fit together.
        """
        group = _GROUP.search(text)
        if group is None:
            raise _unfit(info, "the text says no size of its work-groups")
        buffers = sorted((int(place), access) for place, access, _ in _BUFFER.findall(text))
        if [place for place, _ in buffers] != list(range(info.arg_types.count("handle"))):
            raise _unfit(
                info, f"its {info.arg_types.count('handle')} buffers aren't bound in order"
            )
        written = tuple(access == "read_write" for _, access in buffers)
        if info.written != written:
            raise _unfit(info, "its launch tags say otherwise which buffers it writes")
        shader = Shader(
            text,
            tuple(name.strip() for names in _ENABLE.findall(text) for name in names.split(",")),
            written,
            _scalars(text, info),
            (int(group[1]), int(group[2] or 1), int(group[3] or 1)),
            sum(_bytes(kind.strip(), info) for _, kind in _SHARED.findall(text)),
        )
        if bound := _UNIFORM.findall(text):
            ((place, _),) = bound
            if int(place) != len(buffers):
                raise _unfit(info, "its scalars aren't bound after its buffers")
        return shader

    def check(self, name: str, limits: Mapping[str, int]) -> None:
        """Refuse a kernel that a device can't run.

        Args:
            name: of the kernel, for messages.
            limits: of the device, by the names of target profiles.

        Raises:
            BuildError: it takes more of something than there is.
        """
        takes = {
            "max_buffers": (len(self.written), "storage buffers"),
            "max_threads": (math.prod(self.group), "work-items in a work-group"),
            "max_shared_memory_bytes": (self.group_bytes, "bytes of work-group memory"),
        }
        for limit, (amount, what) in takes.items():
            if amount > limits.get(limit, amount):
                raise BuildError(
                    f"it takes {amount} {what} and the device has {limits[limit]}",
                    where=f"kernel {name}",
                    remedy=f"correct limits.{limit} in the target's profile if devices have more",
                )


def _scalars(text: str, info: KernelInfo) -> tuple[str, ...]:
    """Types of the scalars, which the runtime follows by a number of its own."""
    wanted = [kind for kind in info.arg_types if kind != "handle"]
    found = _UNIFORM.search(text)
    if found is None:
        if wanted:
            raise _unfit(info, "its scalars aren't bound")
        return ()
    body = re.search(rf"struct\s+{found[2]}\s*{{([^}}]*)}}", text)
    members = _MEMBER.findall(body[1]) if body else []
    if not members or members[-1][0] != _FROM_RUNTIME:
        raise _unfit(info, f"the last of its scalars isn't {_FROM_RUNTIME}")
    types = tuple(kind for _, kind in members[:-1])
    if [_SCALAR_TYPES.get(kind, kind) for kind in types] != [
        kind.rstrip("0123456789") for kind in wanted
    ]:
        raise _unfit(
            info,
            f"its scalars are {', '.join(types)} and it is called with {', '.join(wanted)}",
        )
    return types


def _bytes(kind: str, info: KernelInfo) -> int:
    """Size of a variable of a type."""
    if array := _ARRAY.fullmatch(kind):
        return int(array[2]) * _bytes(array[1].strip(), info)
    if vector := _VECTOR.fullmatch(kind):
        # Three elements take the place of four.
        return (int(vector[1]) + 1) // 2 * 2 * _bytes(vector[2], info)
    if atomic := _ATOMIC.fullmatch(kind):
        kind = atomic[1]
    if kind not in _SCALARS:
        raise _unfit(info, f"its work-group memory has a variable of the type {kind}")
    return _SCALARS[kind]


def _unfit(info: KernelInfo, what: str) -> VerificationError:
    return VerificationError(what, where=f"kernel {info.name}")
