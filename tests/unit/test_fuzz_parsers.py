"""Some cases of every parser's fuzz run, so that it goes on working; see ``tests/fuzz_parsers.py``."""

from __future__ import annotations

import pytest

from fuzz_parsers import PARSERS, fuzz


@pytest.mark.parametrize("name", PARSERS)
def test_damaged_checkpoints_end_in_an_answer_or_a_clear_error(name: str) -> None:
    found = fuzz(name, 150, seed=7)
    assert not found.failure
    assert 0 < found.answers < found.cases
    assert found.worst
