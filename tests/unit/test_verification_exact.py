"""A library that promises exact passes is held to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from verification_fakes import FakeCapacity, FakeEngine, random_windows

from edgec.errors import VerificationError
from edgec.progress import Silent
from edgec.verification.exact import exact_figures, promises_exactness
from edgec.verification.run import verify
from edgec.verification.verdict import check_agreement

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKENS = random_windows(100)[0]
PROMISE = {"exact_verification": True}


class Promising(FakeEngine):
    """Its passes of ``wrong`` tokens have another last bit in their last row."""

    def __init__(self, wrong: int = 0, capacity: FakeCapacity | None = None) -> None:
        super().__init__(capacity=capacity)
        self.metadata: dict[str, Any] = PROMISE
        self.wrong = wrong
        self.sizes: list[int] = []

    def all_logits(self, sequence: int, tokens: Sequence[int]) -> np.ndarray:
        rows = super().all_logits(sequence, tokens)
        self.sizes.append(len(tokens))
        if len(tokens) == self.wrong:
            rows[-1, 5] = np.nextafter(rows[-1, 5], np.float32(np.inf))
        return rows


def test_passes_of_many_sizes_are_compared() -> None:
    engine = Promising()
    assert exact_figures(engine, TOKENS) == {"positions": 79, "differing": 0}
    assert set(engine.sizes) >= {2, 3, 5, 9, 16}
    assert sum(engine.sizes) == engine.calls.count("decode") == 79
    assert engine.states == {}


def test_a_single_bit_counts() -> None:
    assert exact_figures(Promising(16), TOKENS)["differing"] == 2
    assert exact_figures(Promising(3), TOKENS[:27])["differing"] == 1


def test_the_smallest_library() -> None:
    engine = Promising(capacity=FakeCapacity(sequences=1, tokens=12, prefill_chunk=1))
    assert exact_figures(engine, TOKENS) == {"positions": 11, "differing": 0}


def test_who_promises_is_held_to_it() -> None:
    plain, right, wrong = FakeEngine(), Promising(), Promising(5)
    assert [promises_exactness(engine) for engine in (plain, right, wrong)] == [False, True, True]
    windows = random_windows(40, 30)
    reports = [
        verify(e, None, None, windows, documents=[], dtype="float32", progress=Silent())
        for e in (plain, right, wrong)
    ]
    assert "exact" not in reports[0]
    assert reports[1]["exact"] == {"positions": 39, "differing": 0}
    for report in reports[:2]:
        check_agreement(report)
    with pytest.raises(
        VerificationError,
        match=r"logits of 1 of 39 positions have other bits .* exact_verification",
    ):
        check_agreement(reports[2])
