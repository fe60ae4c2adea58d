"""Speculative decoding gives the text of single steps, and leaves nothing else in the cache."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speculative_fakes import END, VOCAB, Letters, RoundingEngine

from edgec.errors import UsageError
from edgec.runtime.agreement import Agreement
from edgec.runtime.generate import GenerationStats, Token, generate
from edgec.runtime.reuse import ReusedSequence
from edgec.runtime.sampling import Sampler, SamplingOptions
from edgec.runtime.speculative import (
    Speculation,
    SpeculationStats,
    SpeculativeSequence,
    require_speculation,
)

GREEDY = SamplingOptions(temperature=0)
PROMPT = [1, 2, 3, 4, 5, 1, 2, 3, 4, 6, 1, 2]

OPTIONS = st.builds(
    SamplingOptions,
    temperature=st.sampled_from([0.0, 0.0, 0.5, 1.5]),
    top_p=st.sampled_from([1.0, 0.9, 0.5]),
    top_k=st.sampled_from([None, 3]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.7]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    frequency_penalty=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 3),
)


def ids_of(steps: list[Token]) -> list[int]:
    return [step.id for step in steps if step.id is not None]


def both(
    options: SamplingOptions,
    prompt: list[int] | None = None,
    draft_max: int = 15,
    *,
    ends: bool = True,
    eager: bool = False,
    **model: Any,
) -> tuple[list[Token], list[Token], RoundingEngine, RoundingEngine]:
    """The same generation without speculation and with it, and the engines afterwards."""
    limits = {name: model.pop(name) for name in ("max_tokens", "stop_strings") if name in model}
    limits.setdefault("max_tokens", 150)
    engines = RoundingEngine(**model), RoundingEngine(**model)
    speculation = Speculation(draft_max, clock=lambda: engines[1].time)
    if eager:  # guesses as much as it may, whether it pays or not, with single steps in between
        speculation.length.choose = lambda match, most: most if match > 1 else 0  # type: ignore[method-assign]
    steps = [
        list(
            generate(
                engine,
                Letters(),
                prompt or PROMPT,
                options,
                stop_ids=[END] if ends else [],
                speculation=wanted,
                **limits,
            )
        )
        for engine, wanted in zip(engines, (None, speculation), strict=True)
    ]
    return steps[0], steps[1], engines[0], engines[1]


def stats_of(steps: list[Token]) -> tuple[GenerationStats, SpeculationStats]:
    stats = steps[-1].stats
    assert stats is not None
    assert stats.speculation is not None
    return stats, stats.speculation


@settings(max_examples=120, deadline=None)
@given(
    OPTIONS,
    st.lists(st.integers(0, 4), min_size=1, max_size=20),
    st.integers(0, 5),
    st.sampled_from([0.0, 3.0, 8.0]),
    st.sampled_from([1, 3, 31]),
    st.sampled_from([1, 2, 7, 60]),
    st.sampled_from([(), ("ab",), ("bcd", "cc")]),
    st.sampled_from([26, 60, 400]),
    st.booleans(),
)
def test_whatever_the_options_text_and_cache_are_those_of_single_steps(
    options: SamplingOptions,
    prompt: list[int],
    seed: int,
    copies: float,
    draft_max: int,
    max_tokens: int,
    stop_strings: tuple[str, ...],
    tokens: int,
    eager: bool,
) -> None:
    """Also where the context ends, and where a stop string or token lies within a pass."""
    plain, speculative, one, other = both(
        options,
        prompt,
        draft_max,
        seed=seed,
        copies=copies,
        max_tokens=max_tokens,
        stop_strings=stop_strings,
        tokens=tokens,
        eager=eager,
    )
    assert other.longest <= len(prompt) + max_tokens  # no guesses beyond the limit
    assert speculative[:-1] == plain[:-1]
    assert speculative[-1].text == plain[-1].text
    assert stats_of(speculative)[0].finish_reason == plain[-1].stats.finish_reason  # type: ignore[union-attr]
    assert other.left == one.left


@pytest.mark.parametrize("rounding", [0.005, 0.02])
@pytest.mark.parametrize("penalty", [1.0, 1.2])
def test_greedy_text_is_exact_though_passes_round_differently(
    rounding: float, penalty: float
) -> None:
    options = SamplingOptions(temperature=0, repetition_penalty=penalty)
    repeats = accepted = 0
    for seed in range(40):
        plain, speculative, *_ = both(
            options,
            seed=seed,
            rounding=rounding,
            sharpness=0.3 if seed % 4 else 1.0,
            copies=2.0 if seed % 4 else 0.5,
            eager=seed % 2 == 0,
            ends=False,
        )
        assert ids_of(speculative) == ids_of(plain)
        repeats += stats_of(speculative)[1].repeats
        accepted += stats_of(speculative)[1].accepted
    assert accepted > 500
    assert repeats > 0


def test_without_a_second_look_at_close_tokens_it_would_not_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Agreement, "doubtful", 0.0)
    runs = [both(GREEDY, seed=seed, rounding=0.02, copies=2.0) for seed in range(40)]
    assert any(ids_of(speculative) != ids_of(plain) for plain, speculative, *_ in runs)


def test_text_that_copies_takes_fewer_calls() -> None:
    _, speculative, one, other = both(GREEDY, copies=30.0)
    stats = stats_of(speculative)[1]
    assert stats.accepted > 100
    assert stats.tokens_per_pass > 3
    assert stats.repeats == 0  # nothing rounds, so nothing is in doubt
    assert other.time < 0.5 * one.time
    assert stats.passes + stats.probes == [name for name, _ in other.calls].count("pass")
    assert stats.steps == [name for name, _ in other.calls].count("decode")
    assert stats.to_json()["tokens_per_pass"] == pytest.approx(stats.tokens_per_pass, rel=1e-5)


def test_text_that_does_not_copy_costs_next_to_nothing() -> None:
    """A model that takes any of 12 tokens: a guess is right once in 12 times, if there is one."""
    options = SamplingOptions(temperature=1.0, seed=1)
    _, speculative, one, other = both(options, sharpness=0.0, max_tokens=380, ends=False)
    assert stats_of(speculative)[0].generated_tokens == 380
    assert other.time <= 1.03 * one.time
    slow = Speculation(clock=lambda: 0.0)
    assert slow.length.choose(0, 15) == 0


def probabilities(logits: np.ndarray, options: SamplingOptions, said: Counter[int]) -> np.ndarray:
    """By the definitions, for one choice."""
    scores = logits.astype(np.float64)
    for token, times in said.items():
        scores[token] -= options.presence_penalty + options.frequency_penalty * times
        penalty = options.repetition_penalty
        scores[token] *= penalty if scores[token] < 0 else 1 / penalty
    weights = np.exp(scores / options.temperature)
    order = np.argsort(-weights, kind="stable")
    kept = order[: options.top_k]
    share = np.cumsum(weights[kept]) / weights[kept].sum()
    kept = kept[: int(np.searchsorted(share, options.top_p)) + 1]
    result = np.zeros_like(weights)
    result[kept] = weights[kept]
    return result / result.sum()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"temperature": 0.7, "top_p": 0.8},
        {"top_k": 4, "presence_penalty": 0.7, "frequency_penalty": 0.3, "repetition_penalty": 1.2},
    ],
)
def test_tokens_of_passes_are_distributed_as_they_should_be(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chi-square of the third token, given the two before it that were guessed right."""
    base = {"temperature": 1.0, **changes}
    engine = RoundingEngine(seed=4, copies=1.5)
    speculation = Speculation(clock=lambda: engine.time)
    monkeypatch.setattr(speculation.length, "choose", lambda match, most: min(match and 3, most))
    seen: dict[tuple[int, ...], Counter[int]] = {}
    for seed in range(2000):
        options = SamplingOptions(**base, seed=seed)
        steps = generate(engine, Letters(), PROMPT, options, max_tokens=4, speculation=speculation)
        ids = ids_of(list(steps))
        seen.setdefault(tuple(ids[:3]), Counter())[ids[3]] += 1
    passes = [size for name, size in engine.calls if name == "pass"]
    assert len(passes) > 1500
    for start, counts in sorted(seen.items(), key=lambda item: -item[1].total())[:3]:
        fresh = RoundingEngine(seed=4, copies=1.5)
        fresh.add(0)
        logits = fresh.prefill(0, [*PROMPT, *start])
        wanted = probabilities(logits, options, Counter(start)) * counts.total()
        found = np.array([counts[token] for token in range(VOCAB)])
        assert found[wanted == 0].sum() == 0
        often = wanted > 5
        statistic = ((found - wanted)[often] ** 2 / wanted[often]).sum()
        degrees = int(often.sum()) - 1
        # Mean plus five standard deviations of the chi-square distribution.
        assert statistic < degrees + 5 * np.sqrt(2 * max(degrees, 1)), (start, found, wanted)
        assert counts.total() > 20


@pytest.mark.parametrize("stop_after", [1, 4, 9, 20, 33])
def test_a_caller_who_stops_leaves_what_was_given_in_the_cache(stop_after: int) -> None:
    engine = RoundingEngine(copies=30.0)
    reused = ReusedSequence(engine)
    speculation = Speculation(clock=lambda: engine.time)
    steps = generate(reused, Letters(), PROMPT, GREEDY, max_tokens=200, speculation=speculation)
    given = [next(steps).id for _ in range(stop_after)]
    steps.close()  # type: ignore[attr-defined]
    assert reused.tokens == [*PROMPT, *given[:-1]]
    assert [token for token, _ in engine.sequences[0]] == reused.tokens
    # The next turn prefills only what is new.
    prompt = [*PROMPT, *given, 7, 8]
    list(generate(reused, Letters(), prompt, GREEDY, max_tokens=40, speculation=speculation))  # type: ignore[arg-type]
    assert reused.prefilled == 3


@pytest.mark.parametrize("fail_at", range(2, 30, 4))
def test_after_an_interrupt_the_cache_is_forgotten(fail_at: int) -> None:
    engine = RoundingEngine(copies=30.0)
    reused = ReusedSequence(engine)
    engine.fail_at = fail_at
    speculation = Speculation(clock=lambda: engine.time)

    def run() -> list[int]:
        return ids_of(
            list(
                generate(reused, Letters(), PROMPT, GREEDY, max_tokens=150, speculation=speculation)
            )
        )

    with pytest.raises(KeyboardInterrupt):
        run()
    assert reused.tokens == []
    engine.fail_at = None
    expected = both(GREEDY, copies=30.0)[0]
    assert run() == ids_of(expected)


def test_a_longer_draft_or_text_is_compared_anew() -> None:
    agreement = Agreement()
    row = np.array([1.0, -np.inf, 2.0], np.float32)
    assert not agreement.known(2, 10)
    for _ in range(12):
        agreement.note(row, row, tokens=4, length=100)
    assert agreement.known(4, 200)
    assert not agreement.known(5, 100)
    assert not agreement.known(4, 201)
    assert agreement.doubtful == 0
    agreement.note(row, row + np.float32(0.5))
    assert agreement.doubtful == 8.0


@given(
    st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=6),
    st.sampled_from([1.0, 1.5, 0.5]),
    st.sampled_from([0.0, 0.6]),
    st.dictionaries(st.integers(0, 0), st.integers(1, 3)),
    st.integers(0, 5),
)
def test_smaller_changes_than_half_the_lead_change_nothing(
    logits: list[float], penalty: float, presence: float, counts: dict[int, int], seed: int
) -> None:
    options = SamplingOptions(temperature=0, repetition_penalty=penalty, presence_penalty=presence)
    sampler = Sampler(options)
    row = np.array(logits, np.float32)
    lead = sampler.lead(row, counts)
    assert lead >= 0
    if lead > 1e-4:
        size = min(lead, 100.0) * 0.499
        change = np.random.default_rng(seed).choice([-1.0, 1.0], len(row)) * size
        changed = (row + change).astype(np.float32)
        assert sampler.sample(changed, counts) == sampler.sample(row, counts)


def test_windows_that_slide_are_refused() -> None:
    engine = RoundingEngine()
    require_speculation(engine.metadata, "toy")
    engine.metadata |= {"sliding_window_size": 8, "attention_sink_size": 1}
    with pytest.raises(UsageError, match=r"a window of 8 tokens slides .* can't be taken back"):
        generate(engine, Letters(), PROMPT, GREEDY, speculation=Speculation())
    with pytest.raises(UsageError, match="toy: a window"):
        require_speculation(engine.metadata, "toy")
    assert engine.sequences == {}


def test_a_draft_has_at_least_a_token() -> None:
    with pytest.raises(UsageError, match="draft_max: 0 is out of range"):
        Speculation(0)


def test_a_single_step_after_a_pass_is_in_doubt_too(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, fresh = RoundingEngine(rounding=0.02), RoundingEngine()
    speculation = Speculation()
    row = np.zeros(VOCAB, np.float32)
    for _ in range(12):
        speculation.agreement.note(row, row + np.float32(0.02), tokens=16, length=400)
    sequence = SpeculativeSequence(engine, speculation, exact=True)
    sequence.add(0)
    sequence.prefill(0, PROMPT)
    assert not sequence.doubts(lambda: 0.0)
    monkeypatch.setattr(speculation.length, "choose", lambda match, _most: min(match, 2))
    sequence.decode(0, 3)
    assert sequence.doubts(lambda: 0.0)
    assert not sequence.doubts(lambda: 1.0)
    logits = sequence.decode(0, 10)
    assert [name for name, _ in engine.calls] == ["prefill", "pass", "decode"]
    assert sequence.doubts(lambda: 0.0)
    fresh.add(0)
    exact = fresh.prefill(0, [*PROMPT, 3, 10])
    assert not np.array_equal(logits, exact)
    assert np.array_equal(sequence.by_single_steps(0, logits), exact)
    assert not sequence.doubts(lambda: 0.0)
