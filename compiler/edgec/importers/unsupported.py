"""The refusal of operators that can't be translated: all of them at once, by name."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from edgec.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterable


def refuse_operators(operators: Iterable[str], *, where: str, remedy: str) -> None:
    """Raise if there are any.

    Args:
        operators: the name of each unsupported operator, once for each place where it occurs.
        where: the model.
        remedy: what else can be tried.

    Raises:
        UnsupportedModelError: says each name and how often it occurs.
    """
    counts = Counter(operators)
    if not counts:
        return
    listed = ", ".join(f"{name} ({_times(counts[name])})" for name in sorted(counts))
    what = "an operator" if len(counts) == 1 else f"{len(counts)} operators"
    raise UnsupportedModelError(
        f"{what} of the model can't be translated: {listed}", where=where, remedy=remedy
    )


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")
