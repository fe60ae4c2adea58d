"""Speculative decoding gives the text of single steps, and leaves nothing else in the cache."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speculative_fakes import END, VOCAB, Letters, TableEngine

from edgec.errors import UsageError
from edgec.runtime.generate import GenerationStats, Token, generate
from edgec.runtime.reuse import ReusedSequence
from edgec.runtime.sampling import SamplingOptions
from edgec.runtime.speculative import (
    DRAFT_MAX,
    Speculation,
    SpeculationStats,
    require_no_window,
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
) -> tuple[list[Token], list[Token], TableEngine, TableEngine]:
    """The same generation without speculation and with it, and the engines afterwards."""
    limits = {name: model.pop(name) for name in ("max_tokens", "stop_strings") if name in model}
    limits.setdefault("max_tokens", 150)
    engines = TableEngine(**model), TableEngine(**model)
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
    st.sampled_from([1, 3, DRAFT_MAX]),
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
    assert other.longest < len(prompt) + max_tokens  # no guesses beyond the limit
    assert speculative[:-1] == plain[:-1]
    assert speculative[-1].text == plain[-1].text
    assert stats_of(speculative)[0].finish_reason == plain[-1].stats.finish_reason  # type: ignore[union-attr]
    assert other.left == one.left


def test_text_that_copies_takes_fewer_calls() -> None:
    _, speculative, one, other = both(GREEDY, copies=30.0)
    stats = stats_of(speculative)[1]
    assert stats.accepted > 100
    assert stats.tokens_per_pass > 3
    assert other.time < 0.5 * one.time
    assert stats.passes == [name for name, _ in other.calls].count("pass")
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
    engine = TableEngine(seed=4, copies=1.5)
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
        fresh = TableEngine(seed=4, copies=1.5)
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
    engine = TableEngine(copies=30.0)
    reused = ReusedSequence(engine)
    speculation = Speculation(clock=lambda: engine.time)
    steps = generate(reused, Letters(), PROMPT, GREEDY, max_tokens=200, speculation=speculation)
    given = [next(steps).id for _ in range(stop_after)]
    steps.close()  # type: ignore[attr-defined]
    assert reused.tokens == [*PROMPT, *given[:-1]]
    assert engine.sequences[0] == reused.tokens
    # The next turn prefills only what is new.
    prompt = [*PROMPT, *given, 7, 8]
    list(generate(reused, Letters(), prompt, GREEDY, max_tokens=40, speculation=speculation))  # type: ignore[arg-type]
    assert reused.prefilled == 3


@pytest.mark.parametrize("fail_at", range(2, 15, 2))
def test_after_an_interrupt_the_cache_is_forgotten(fail_at: int) -> None:
    engine = TableEngine(copies=30.0)
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


def test_windows_that_slide_are_refused() -> None:
    engine = TableEngine()
    require_speculation(engine.metadata, "toy")
    engine.metadata |= {"sliding_window_size": 8, "attention_sink_size": 1}
    with pytest.raises(UsageError, match=r"a window of 8 tokens slides .* can't be taken back"):
        generate(engine, Letters(), PROMPT, GREEDY, speculation=Speculation())
    for refuse in (require_no_window, require_speculation):
        with pytest.raises(UsageError, match="toy: a window"):
            refuse(engine.metadata, "toy")
    assert engine.sequences == {}


def test_libraries_whose_passes_compute_otherwise_are_refused() -> None:
    engine = TableEngine()
    for metadata in ({**engine.metadata, "exact_verification": False}, {"context_window_size": 99}):
        engine.metadata = metadata
        with pytest.raises(UsageError, match=r"give other logits .* guesses could change the text"):
            generate(engine, Letters(), PROMPT, GREEDY, speculation=Speculation())
    require_no_window(engine.metadata, "toy")
    assert engine.calls == []


@pytest.mark.parametrize("count", [0, DRAFT_MAX + 1])
def test_a_draft_has_at_least_a_token_and_fits_in_an_exact_pass(count: int) -> None:
    with pytest.raises(UsageError, match=f"draft_max: {count} is out of range; give 1 to 15"):
        Speculation(count)
