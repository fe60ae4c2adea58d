"""Which tensor of a weight folder lies in which file, at which byte.

The rule is that of TVM's own dumper, so that a folder is cut where users of these runtimes expect
it: tensors follow each other in files of less than 32 MiB; a tensor of 16 MiB or more that doesn't
fit into the open file gets a file of its own. That file is numbered at once, the open one when it
is closed, so the numbers of the files don't follow the order of the tensors.

Unlike there, each tensor begins at a multiple of 64 bytes, which is what kernels assume of their
buffers: a runtime that maps a file can use every tensor where it lies. Loaders find tensors by the
offsets in the index, so the zeros in between are nothing to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.layouts.specs import TensorSpec, nbytes

if TYPE_CHECKING:
    from collections.abc import Iterable

SHARD_BYTES = 32 << 20
ALIGNMENT = 64
"""Bytes: what TVM's generated code assumes of every buffer."""


@dataclass(frozen=True)
class Placement:
    """A tensor and the byte of its shard at which it begins."""

    spec: TensorSpec
    offset: int


@dataclass(frozen=True)
class Shard:
    """One file of tensors in ascending order, with zeros between them.

    Attributes:
        file: its name, ``params_shard_N.bin``.
        placements: what it holds, by offset.
    """

    file: str
    placements: tuple[Placement, ...]

    @property
    def nbytes(self) -> int:
        """The file's size: there is nothing behind the last tensor."""
        last = self.placements[-1]
        return last.offset + nbytes(last.spec)


def plan_shards(
    specs: Iterable[TensorSpec], shard_bytes: int = SHARD_BYTES, *, alignment: int = ALIGNMENT
) -> list[Shard]:
    """Cut a list of tensors into shards, in the order of their numbers.

    Args:
        specs: the tensors.
        shard_bytes: files of several tensors are smaller than that.
        alignment: each tensor begins at a multiple of so many bytes of its file.
    """
    closed: list[Shard] = []
    pending: list[Placement] = []
    filled = 0

    def close(placements: list[Placement]) -> None:
        closed.append(Shard(f"params_shard_{len(closed)}.bin", tuple(placements)))

    for spec in specs:
        size = nbytes(spec)
        assert size > 0, spec
        filled = -(-filled // alignment) * alignment
        if filled + size >= shard_bytes:
            if 2 * size >= shard_bytes:
                close([Placement(spec, 0)])
                continue
            if pending:
                close(pending)
            pending, filled = [], 0
        pending.append(Placement(spec, filled))
        filled += size
    if pending:
        close(pending)
    return closed
