"""Measurements with a clock that the test moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from artifact_fakes import CONTEXT, VOCABULARY, ScriptedEngine

from edgec.errors import UsageError
from edgec.runtime.bench import Measurement, Round, Spread, Workload, measure, prompt_ids
from edgec.runtime.machine import cpu_model, peak_rss

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt


class TimedEngine(ScriptedEngine):
    """A prefill takes 10 ms per token, and 100 ms more at first; a decode 20 ms."""

    def __init__(self) -> None:
        super().__init__(range(3, 500))
        self.now = 0.0
        self.prompts: list[list[int]] = []
        self.decoded: list[int] = []

    def prefill(self, sequence: int, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        self.now += 0.01 * len(tokens) + (0.0 if self.prompts else 0.1)
        self.prompts.append(list(tokens))
        return super().prefill(sequence, tokens)

    def decode(self, sequence: int, token: int) -> npt.NDArray[np.float32]:
        self.now += 0.02
        self.decoded.append(token)
        return super().decode(sequence, token)


def test_rounds_are_measured_after_one_that_is_not_counted() -> None:
    engine = TimedEngine()
    told: list[int] = []
    found = measure(
        engine, VOCABULARY, Workload(20, 8, 3), clock=lambda: engine.now, on_round=told.append
    )
    assert told == [0, 1, 2, 3]
    assert found.first_round == pytest.approx(0.3)
    assert len(found.rounds) == 3
    assert found.time_to_first_token == Spread(0.2, 0.2, 0.2)
    assert found.prefill_rate == Spread(100.0, 100.0, 100.0)
    assert found.decode_rate == Spread(50.0, 50.0, 50.0)
    assert found.latency(90) == Spread(0.02, 0.02, 0.02)
    assert [len(item.latencies) for item in found.rounds] == [8, 8, 8]
    assert not engine.sequences


def test_every_round_has_the_same_prompt_and_follows_the_most_likely_token() -> None:
    engine = TimedEngine()
    measure(engine, VOCABULARY, Workload(5, 3, 1), clock=lambda: engine.now)
    assert engine.prompts == [prompt_ids(5, VOCABULARY)] * 2
    assert engine.decoded == [3, 4, 5, 7, 8, 9]


def test_prompts_are_spread_over_the_vocabulary() -> None:
    ids = prompt_ids(500, VOCABULARY)
    assert len(set(ids)) == 500
    assert max(ids) < VOCABULARY
    assert prompt_ids(3, 1) == [0, 0, 0]


def test_spreads_and_percentiles() -> None:
    rounds = tuple(Round(first, tuple(range(1, 12))) for first in (0.1, 0.5, 0.2))
    found = Measurement(Workload(10, 11, 3), 9.0, rounds)
    assert found.time_to_first_token == Spread(0.1, 0.2, 0.5)
    assert found.prefill_rate == Spread(20.0, 50.0, 100.0)
    assert found.latency(50).median == 6
    assert found.latency(90).median == 10
    data = found.to_json()
    assert data["token_latency_p90_s"] == {"min": 10.0, "median": 10.0, "max": 10.0}
    assert data["workload"] == {"prompt_tokens": 10, "generate_tokens": 11, "repeat": 3}


def test_a_workload_beyond_the_context_is_refused() -> None:
    measure(ScriptedEngine(range(3, 500)), VOCABULARY, Workload(CONTEXT - 1, 1, 1))
    with pytest.raises(UsageError, match=f"don't fit into the context of {CONTEXT}"):
        measure(ScriptedEngine(), VOCABULARY, Workload(CONTEXT, 1, 1))


def test_an_interrupted_round_leaves_no_sequence() -> None:
    engine = ScriptedEngine(range(3, 500))
    engine.fail_after = 4
    with pytest.raises(KeyboardInterrupt):
        measure(engine, VOCABULARY, Workload(4, 8, 1))
    assert not engine.sequences


def test_the_processor_is_named(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(
        "processor\t: 0\nmodel name\t: Some CPU: 9\nprocessor\t: 1\nmodel name\t: B\n"
    )
    assert cpu_model(cpuinfo) == "Some CPU: 9"
    assert cpu_model(tmp_path / "missing")


def test_peak_memory_comes_from_the_process_itself(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t  1000 kB\nVmRSS:\t 900 kB\n")
    assert peak_rss(status) == 1024000
    assert peak_rss(tmp_path / "missing") > 1 << 20
    assert peak_rss() > 1 << 20
