"""Texts that end an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


class StopStrings:
    """Lets text through until one of some strings comes, which may arrive in pieces.

    Text that could be the beginning of such a string is held back. The result doesn't depend on
    how the text is cut into pieces: the string that is complete first counts, and of those
    that end at the same place the longest.

    Args:
        strings: the strings.

    Attributes:
        stopped: whether one of them came.

    Raises:
        UsageError: one of them is empty.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        if not all(strings):
            raise UsageError("a stop string is empty", remedy="give text, or leave it out")
        self._strings = tuple(strings)
        self._held = ""
        self.stopped = False

    def push(self, text: str) -> str:
        """The part of the text so far that is certain to stand before every stop string."""
        if self.stopped:
            return ""
        text = self._held + text
        ends = [(start + len(s), start) for s in self._strings if (start := text.find(s)) >= 0]
        if ends:
            self.stopped = True
            self._held = ""
            return text[: min(ends)[1]]
        cut = len(text) - self._doubtful(text)
        self._held = text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    def _doubtful(self, text: str) -> int:
        """How many characters at the end could begin a stop string."""
        return max(
            (
                size
                for string in self._strings
                for size in range(1, min(len(string), len(text) + 1))
                if text.endswith(string[:size])
            ),
            default=0,
        )
