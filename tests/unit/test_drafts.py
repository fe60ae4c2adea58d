"""What is guessed from the text so far, and how much of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.runtime.draft_length import DraftLength
from edgec.runtime.embedded_images import EmbeddedImage
from edgec.runtime.ngram import LONGEST_MATCH, NgramIndex

TEXTS = st.lists(st.integers(0, 3), max_size=60)


def common(tokens: list[Any], place: int) -> int:
    """By definition: how many tokens before a place are those at the end."""
    count = 0
    while count < place and tokens[place - 1 - count] == tokens[len(tokens) - 1 - count]:
        count += 1
    return min(count, LONGEST_MATCH)


@given(TEXTS)
def test_a_place_is_found_that_reads_as_the_end_does(tokens: list[int]) -> None:
    index = NgramIndex(tokens)
    places = range(1, len(tokens))
    longest = max((common(tokens, place) for place in places), default=0)
    assert index.tokens == tokens
    # Longer matches come before shorter ones, in the steps in which they are looked up.
    assert max(size for size in (0, 1, 2, 3, 4, 8) if size <= longest) <= index.match <= longest
    if index.match:
        guessed = index.draft(5)
        assert guessed
        assert any(
            common(tokens, place) == index.match
            and (tokens[place:] + tokens[place:] * 5)[:5] == guessed
            for place in places
        )
    else:
        assert index.draft(5) == []


@given(TEXTS, TEXTS)
def test_a_text_that_grows_is_indexed_as_one_that_is_there(
    tokens: list[int], more: list[int]
) -> None:
    index = NgramIndex(tokens)
    for token in more:
        guess = index.draft(1)
        assert index.append(token) == (None if not guess else guess[0] == token)
    assert index.tokens == tokens + more
    # A match that goes on is kept, also where a later one would be as long.
    assert index.match >= min(NgramIndex(tokens + more).match, 8)


def test_the_latest_of_equal_matches_counts() -> None:
    assert NgramIndex([1, 2, 9, 1, 2, 8, 1, 2]).draft(1) == [8]
    assert NgramIndex([5, 1, 2, 9, 6, 1, 2, 8, 5, 1, 2]).draft(1) == [9]


def test_a_text_that_goes_round_goes_on() -> None:
    assert NgramIndex([7, 1, 2, 3, 1, 2, 3]).draft(7) == [1, 2, 3, 1, 2, 3, 1]
    assert NgramIndex([4, 4]).draft(3) == [4, 4, 4]


SOURCE = [*range(10, 50)]
AT = 20  # how much of it was copied when it was changed


@pytest.mark.parametrize(
    ("changed", "goes_on"),
    [
        ([1], AT + 1),  # another token in the place of one
        ([1, 2, 3], AT + 1),  # more in its place
        ([1], AT),  # some between two
        ([1], AT + 9),  # some left out
    ],
)
def test_a_copy_that_was_changed_is_read_on_behind_the_change(
    changed: list[int], goes_on: int
) -> None:
    """Though what comes first behind the change came again elsewhere, and later."""
    elsewhere = [5, SOURCE[goes_on], 6]
    index = NgramIndex([*SOURCE, *elsewhere, *SOURCE[:AT]])
    assert index.draft(3) == SOURCE[AT : AT + 3]
    for token in changed:
        index.append(token)
    index.append(SOURCE[goes_on])
    assert index.draft(3) == SOURCE[goes_on + 1 : goes_on + 4]
    assert index.match == 3


def test_much_that_came_elsewhere_tells_more_than_nearness_does() -> None:
    elsewhere = [6, 7, 8, SOURCE[AT + 1], 9]
    index = NgramIndex([*SOURCE, *elsewhere, *SOURCE[:AT]])
    for token in elsewhere[:-1]:
        index.append(token)
    assert index.draft(1) == [9]


def test_a_change_far_behind_is_forgotten() -> None:
    index = NgramIndex([*SOURCE, 5, SOURCE[AT + 1], 6, *SOURCE[:AT]])
    for token in [*range(100, 140), SOURCE[AT + 1]]:
        index.append(token)
    assert index.draft(1) == [6]


def test_rows_of_images_are_never_guessed() -> None:
    image = EmbeddedImage(np.zeros((2, 4)))
    tokens = [1, 2, 3, *image.tokens(), 1, 2]
    assert NgramIndex(tokens).draft(4) == [3]
    assert NgramIndex([*image.tokens(), 5, *image.tokens()]).draft(1) == [5]


def trained(times: dict[int, float], chance: float, match: int = 3) -> DraftLength:
    length = DraftLength()
    for rows, seconds in times.items():
        length.timed(rows, seconds)
    for turn in range(400):
        for longer in range(match, LONGEST_MATCH + 1):
            length.observe(longer, turn * 37 % 100 < 100 * chance)
    return length


FLAT = {1: 1.0, 2: 1.05, 4: 1.1, 8: 1.2, 16: 1.4}
STEEP = {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0, 16: 16.0}


def test_nothing_is_drafted_before_a_step_was_timed_or_without_a_match() -> None:
    assert DraftLength().choose(8, 15) == 0
    assert trained(FLAT, 1.0).choose(0, 15) == 0


@pytest.mark.parametrize(
    ("times", "chance", "drafted"),
    [(FLAT, 1.0, 15), (FLAT, 0.0, 0), (STEEP, 0.99, 0), ({1: 1.0, 4: 1.1, 8: 8.0}, 0.99, 3)],
)
def test_as_much_is_drafted_as_pays(times: dict[int, float], chance: float, drafted: int) -> None:
    assert trained(times, chance).choose(3, 15) == drafted


def test_less_is_drafted_the_less_likely_it_is_right() -> None:
    lengths = [trained(FLAT, chance).choose(3, 15) for chance in (0.95, 0.7, 0.4, 0.02)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[2] > lengths[3] == 0


def test_longer_drafts_are_tried_step_by_step() -> None:
    assert trained({1: 1.0}, 1.0).choose(3, 31) == 1
    assert trained({1: 1.0, 2: 1.1}, 1.0).choose(3, 31) == 3
    assert trained({1: 1.0, 2: 1.1, 4: 1.1}, 1.0).choose(3, 31) == 7
    assert trained(FLAT, 1.0).choose(3, 10) == 10


def test_one_interruption_changes_nothing() -> None:
    length = trained(FLAT, 1.0)
    for _ in range(4):
        length.timed(16, 1.4)
    length.timed(16, 90.0)
    assert length.choose(3, 15) == 15
