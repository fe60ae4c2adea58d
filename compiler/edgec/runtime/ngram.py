"""What could come next, by what came after the same tokens before.

Prompt lookup: text that copies from its prompt or from itself, such as edited source code, is
predicted by finding the latest tokens further up and reading on from there
(https://arxiv.org/abs/2304.04487, where the text that is read on from is a retrieved document).

Text that was copied up to a change goes on right behind what was changed more often than at the latest
place that reads alike. So the place where reading was given up is remembered, and looked around first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgec.runtime.embedded_images import Token

LONGEST_MATCH = 16
"""Matches are counted up to this many tokens."""

# A match of so many tokens is a copy: where it ends, the text was changed and may go on nearby.
_COPY = 8
# How far from there it is looked for, and for how many tokens of the text.
_NEAR = 24
_PATIENCE = 32
# What nearness adds to the length of a match: as often as one of two tokens more, it is right.
_NEARNESS = 2

# Lengths of the sequences of tokens that are looked up, the longest first. A match is followed on
# from there, so longer ones are found without being looked up.
_SIZES = (8, 4, 3, 2, 1)


class NgramIndex:
    """A text that grows, and a place further up in it that reads as its end does.

    Each token costs a few look-ups, however long the text is, and about half a kilobyte.

    Args:
        tokens: the beginning of the text.

    Attributes:
        tokens: the text.
        match: how many tokens before that place are those at the end of the text, and two more where
            it is close to the end of a copy; at most ``LONGEST_MATCH``, 0 if there is no such place.
    """

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self.tokens: list[Token] = []
        self.match = 0
        self._place = 0
        self._left: int | None = None  # where a copy ended
        self._waited = 0
        self._after: tuple[dict[tuple[Token, ...], int], ...] = tuple({} for _ in _SIZES)
        self._last: list[tuple[Token, ...]] = []  # the latest tokens, by size
        for token in tokens:
            self._note(token)
        self._look_up()

    def append(self, token: Token) -> bool | None:
        """Let the text grow.

        Returns:
            Whether the token had been predicted; None if nothing was.
        """
        right = self.tokens[self._place] == token if self.match else None
        self._note(token)
        if right:
            self._place += 1
            self.match = min(self.match + 1, LONGEST_MATCH)
            return right
        if right is False and self.match >= _COPY:
            self._left, self._waited = self._place, 0
        self._look_up()
        self._look_around()
        return right

    def draft(self, count: int) -> list[int]:
        """The likely next tokens, at most ``count``. A text that ends there begins anew there."""
        found: list[int] = []
        period = len(self.tokens) - self._place
        for ahead in range(count if self.match else 0):
            token = self.tokens[self._place + ahead % period]
            if not isinstance(token, int):
                break  # the row of an image
            found.append(token)
        return found

    def _note(self, token: Token) -> None:
        # What ends right before this token is found from now on: there is something to read there.
        end = len(self.tokens)
        for after, last in zip(self._after, self._last, strict=False):
            after[last] = end
        self.tokens.append(token)
        latest = (*(self._last[0] if self._last else ())[1 - _SIZES[0] :], token)
        self._last = [latest[-size:] for size in _SIZES]

    def _look_up(self) -> None:
        """Find the latest place with the longest match of ``_SIZES``."""
        self.match = 0
        for after, last in zip(self._after, self._last, strict=False):
            place = after.get(last)
            if place is not None:
                self._place = place
                self.match = _common_suffix(self.tokens, place, len(last))
                return

    def _look_around(self) -> None:
        """Read on near the end of the last copy if that matches about as well."""
        if self._left is None:
            return
        self._waited += 1
        if self._waited > _PATIENCE:
            self._left = None
            return
        token, best = self.tokens[-1], 0
        for place in range(self._left + 1, min(self._left + 1 + _NEAR, len(self.tokens))):
            if self.tokens[place - 1] == token:
                length = _common_suffix(self.tokens, place, 1)
                if length > best and length + _NEARNESS >= self.match:
                    best, self._place = length, place
        if best:
            self.match = min(best + _NEARNESS, LONGEST_MATCH)


def _common_suffix(tokens: Sequence[Token], place: int, known: int) -> int:
    """How many tokens before ``place`` are those at the end; ``known`` of them are."""
    end = len(tokens)
    length = known
    while (
        length < min(LONGEST_MATCH, place)
        and tokens[place - 1 - length] == tokens[end - 1 - length]
    ):
        length += 1
    return length
