"""The numbers of a launch: its extents by tag, and its arguments as bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.standins.faults import KernelFault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.libraries.device import KernelInfo

_FLOATS = {"float16": "<e6x", "float32": "<f4x", "float64": "<d"}
_SLOT = 8  # bytes


@dataclass(frozen=True)
class Extents:
    """How many work-items a launch has.

    Attributes:
        grid: work-groups in x, y, z.
        group: work-items of a work-group in x, y, z.
        dynamic_shared: bytes of dynamic shared memory.
    """

    grid: tuple[int, int, int]
    group: tuple[int, int, int]
    dynamic_shared: int

    @staticmethod
    def of(info: KernelInfo, extents: Sequence[int]) -> Extents:
        """Sort the extents of a launch by their tags; a missing one is 1.

        Raises:
            KernelFault: one isn't positive: drivers refuse such a launch.
        """
        assert len(extents) == len(info.extent_tags), (info, extents)
        by_tag = dict(zip(info.extent_tags, extents, strict=True))
        shared = next(
            (value for tag, value in by_tag.items() if tag.endswith("use_dyn_shared_memory")), 0
        )
        sizes = {
            tag: value for tag, value in by_tag.items() if tag.startswith(("blockIdx", "threadIdx"))
        }
        for tag, value in sizes.items():
            if value < 1:
                raise KernelFault(info.name, f"it is launched with {value} as the extent of {tag}")
        return Extents(_axes(sizes, "blockIdx"), _axes(sizes, "threadIdx"), shared)


def _axes(sizes: Mapping[str, int], tag: str) -> tuple[int, int, int]:
    return sizes.get(f"{tag}.x", 1), sizes.get(f"{tag}.y", 1), sizes.get(f"{tag}.z", 1)


def slots(info: KernelInfo, arguments: Sequence[int | float]) -> bytes:
    """The arguments of a launch in slots of 8 bytes, each little endian in its own type."""
    assert len(arguments) == len(info.arg_types), (info, arguments)
    return b"".join(
        _slot(kind, value) for kind, value in zip(info.arg_types, arguments, strict=True)
    )


def _slot(kind: str, value: float) -> bytes:
    if kind in _FLOATS:
        return struct.pack(_FLOATS[kind], value)
    # Integers wrap around, as they do in the register that a host function passes them in.
    return (int(value) & 0xFFFFFFFFFFFFFFFF).to_bytes(_SLOT, "little")
