"""Cases of which some run on every change, and all at night."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def nightly_but(always: Callable[[Any], bool], cases: Iterable[Any]) -> list[Any]:
    """Parameters for :func:`pytest.mark.parametrize`, named as their text.

    Args:
        always: says of a case whether it runs on every change.
        cases: all.
    """
    return [
        pytest.param(case, id=str(case), marks=[] if always(case) else [pytest.mark.nightly])
        for case in cases
    ]
