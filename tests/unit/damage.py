"""Damage to binary files, and what a reader may do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from edgec.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable

# What breaks size fields: nothing, the ends of their ranges, and small steps.
_WORDS = (b"\0" * 8, b"\xff" * 8, b"\xff" * 4, b"\x7f", b"\x80", b"\1")


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file that was cut, or a few of whose bytes were overwritten."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 4))):
        word = draw(st.one_of(st.sampled_from(_WORDS), st.binary(min_size=1, max_size=4)))
        place = draw(st.integers(0, len(data) - 1))
        data[place : place + len(word)] = word
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


def survives(read: Callable[[bytes], object], data: bytes) -> None:
    """Whether a reader answers with a value, or with an error that names the file and a remedy."""
    try:
        read(data)
    except VerificationError as error:
        assert "here" in error.where  # noqa: PT017 - only what is raised can be looked at
        assert error.remedy  # noqa: PT017
