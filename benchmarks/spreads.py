"""How far repeated measurements lie apart, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.runtime.bench import Spread

if TYPE_CHECKING:
    from collections.abc import Sequence


def spread_text(values: Sequence[float] | Spread, digits: int = 1) -> str:
    """``min/median/max`` of values, or of their spread."""
    spread = values if isinstance(values, Spread) else Spread.of(values)
    return "/".join(f"{value:.{digits}f}" for value in (spread.min, spread.median, spread.max))
