"""A model's files in pieces that an app store delivers; no file is cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.errors import BuildError

if TYPE_CHECKING:
    from edgec.packaging.model import PackagedModel, SourceFile


@dataclass(frozen=True)
class Pack:
    """Files that are delivered together.

    Attributes:
        name: unique among all packs of an app.
        files: of one model.
    """

    name: str
    files: tuple[SourceFile, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its files."""
        return sum(file.nbytes for file in self.files)


def split(model: PackagedModel, limit: int) -> tuple[Pack, ...]:
    """Put a model's files into as few packs as their order allows.

    The order is kept and a pack is closed when the next file doesn't fit, so that a new build
    whose shards are the same has the same packs, and users download only what has changed.

    Args:
        model: its files.
        limit: most bytes of a pack.

    Raises:
        BuildError: one file alone is larger.
    """
    groups: list[list[SourceFile]] = [[]]
    room = limit
    for file in model.files:
        if file.nbytes > limit:
            raise BuildError(
                f"it has {file.nbytes} bytes, the store takes packs of {limit}, and no engine reads"
                " a shard in pieces",
                where=str(file.source),
                remedy="choose a scheme with fewer bits, or have the app download it (--weights-url)",
            )
        if file.nbytes > room:
            groups.append([])
            room = limit
        groups[-1].append(file)
        room -= file.nbytes
    return tuple(
        Pack(f"{model.store_name}_weights_{number}", tuple(group))
        for number, group in enumerate(groups, start=1)
    )
