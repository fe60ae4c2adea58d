"""What archives and tars hold."""

from __future__ import annotations

from typing import NamedTuple


class Member(NamedTuple):
    """One file of an archive.

    Attributes:
        name: without folders.
        data: all of it.
    """

    name: str
    data: bytes
