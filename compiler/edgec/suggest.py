"""What to say about a name that isn't known: the closest known ones, or all of them."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_SHOWN = 30
_BESIDE_A_GUESS = 6


def close_names(name: str, known: Iterable[str], *, count: int = 3) -> list[str]:
    """At most ``count`` known names that resemble ``name``, the closest first."""
    by_folded = {known_name.casefold(): known_name for known_name in known}
    found = difflib.get_close_matches(name.casefold()[:100], by_folded, n=count, cutoff=0.6)
    return [by_folded[match] for match in found]


def instead_of(name: str, known: Iterable[str], *, noun: str) -> str:
    """A remedy for an unknown ``name``: the close names, or the list of those that exist.

    Args:
        name: what was given.
        known: what exists.
        noun: what the names are, in the plural: ``"fields"``, ``"targets"``.
    """
    names = list(known)
    if not names:
        return f"leave it out, there are no {noun} yet"
    close = close_names(name, names)
    if not close:
        return f"the {noun} are {listing(names)}" if len(names) > 1 else f"write {names[0]}"
    guess = f"did you mean {listing(close, last='or')}?"
    if len(close) == len(names) or len(names) > _BESIDE_A_GUESS:
        return guess
    return f"{guess} (the {noun} are {listing(names)})"


def listing(names: Iterable[str], *, last: str = "and") -> str:
    """``a, b and c``; a long list is cut short with a count."""
    shown = list(names)
    if len(shown) > _SHOWN:
        return f"{', '.join(shown[:_SHOWN])} {last} {len(shown) - _SHOWN} more"
    if len(shown) < 2:
        return "".join(shown)
    return f"{', '.join(shown[:-1])} {last} {shown[-1]}"
