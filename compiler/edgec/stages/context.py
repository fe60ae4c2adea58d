"""What a stage is given: the one argument of its ``run``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgec.progress import Progress


@dataclass(frozen=True)
class StageContext:
    """The inputs and the place of one run of a stage.

    Attributes:
        out: an empty directory to fill. It is renamed afterwards: no file in it may hold its path.
        inputs: what the result may depend on, JSON values by dotted key; part of the digest.
        local: what the result must not depend on (paths, thread counts), JSON values; a path
            arrives as text.
        parents: the output directories of the parent stages by stage name, to be read only.
        progress: receives the steps of the work.
    """

    out: Path
    inputs: Mapping[str, Any]
    local: Mapping[str, Any]
    parents: Mapping[str, Path]
    progress: Progress
