"""The library runs on this machine itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.runtime.load import load_engine

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgec.runtime.engine import Capacity, Engine


def open_engine(
    library: Path,
    weights: Path,
    cpu_features: Sequence[str],
    architecture: str,
    *,
    capacity: Capacity | None = None,
) -> Engine:
    """Load a library on this machine; see :meth:`edgec.standins.StandIn.open_engine`."""
    return load_engine(library, weights, cpu_features, architecture, capacity=capacity)
