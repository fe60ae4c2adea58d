"""Which tensor of a weight folder lies in which file, at which byte.

The rule is that of TVM's own dumper, so that a folder is cut where users of these runtimes expect
it: tensors follow each other without padding in files of less than 32 MiB; a tensor of 16 MiB or
more that doesn't fit into the open file gets a file of its own. That file is numbered at once,
the open one when it is closed, so the numbers of the files don't follow the order of the tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.layouts.specs import TensorSpec, nbytes

if TYPE_CHECKING:
    from collections.abc import Iterable

SHARD_BYTES = 32 << 20


@dataclass(frozen=True)
class Placement:
    """A tensor and the byte of its shard at which it begins."""

    spec: TensorSpec
    offset: int


@dataclass(frozen=True)
class Shard:
    """One file of tensors that follow each other.

    Attributes:
        file: its name, ``params_shard_N.bin``.
        placements: what it holds, by offset.
    """

    file: str
    placements: tuple[Placement, ...]

    @property
    def nbytes(self) -> int:
        """The file's size."""
        return sum(nbytes(placement.spec) for placement in self.placements)


def plan_shards(specs: Iterable[TensorSpec], shard_bytes: int = SHARD_BYTES) -> list[Shard]:
    """Cut a list of tensors into shards, in the order of their numbers."""
    closed: list[Shard] = []
    pending: list[Placement] = []
    filled = 0

    def close(placements: list[Placement]) -> None:
        closed.append(Shard(f"params_shard_{len(closed)}.bin", tuple(placements)))

    for spec in specs:
        size = nbytes(spec)
        assert size > 0, spec
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
