"""The result of looking at one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "missing"]


@dataclass(frozen=True)
class Check:
    """One line of a diagnosis.

    Attributes:
        name: what was looked at.
        state: ``"missing"`` if nothing works without it, ``"warning"`` if something optional is
            not as it should be.
        found: what is there.
        needed: what should be; empty where anything will do.
        remedy: what to do about it, as an imperative clause without a full stop; empty if nothing
            has to be done.
    """

    name: str
    state: State
    found: str
    needed: str = ""
    remedy: str = ""
