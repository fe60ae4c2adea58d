"""Generation on an engine that follows a script."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgec.errors import UsageError
from edgec.runtime.generate import GenerationStats, Token, generate
from edgec.runtime.sampling import SamplingOptions
from edgec.runtime.stops import StopStrings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

VOCAB = 256
GREEDY = SamplingOptions(temperature=0)
END = 255


class Bytes:
    """A tokenizer whose tokens are the bytes of UTF-8; 255 ends text and is silent."""

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(token for token in ids if token != END).decode(errors="replace")

    def is_byte(self, token: int) -> bool:
        return False

    def is_silent(self, token: int) -> bool:
        return token == END


class ScriptedEngine:
    """Wants to say ``script``; knows what was appended to its sequences."""

    def __init__(self, script: bytes, context: int = 1000, tokens: int | None = None) -> None:
        self.script = script
        self.metadata: dict[str, Any] = {"context_window_size": context}
        self.capacity: Any = SimpleNamespace(tokens=tokens or context)
        self.sequences: dict[int, list[int]] = {}
        self.time = 0.0
        self.appended: list[int] = []
        self.fail_at: int | None = None

    def add(self, sequence: int) -> None:
        assert sequence not in self.sequences
        self.sequences[sequence] = []

    def remove(self, sequence: int) -> None:
        self.appended = self.sequences.pop(sequence)

    def prefill(self, sequence: int, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        self.time += 0.5
        self.sequences[sequence] += tokens
        self.start = len(tokens)
        return self._logits(sequence)

    def decode(self, sequence: int, token: int) -> npt.NDArray[np.float32]:
        self.time += 0.125
        self.sequences[sequence].append(token)
        if len(self.sequences[sequence]) == self.fail_at:
            raise RuntimeError
        return self._logits(sequence)

    def _logits(self, sequence: int) -> npt.NDArray[np.float32]:
        assert len(self.sequences[sequence]) <= self.capacity.tokens
        logits = np.zeros(VOCAB, np.float32)
        logits[self.script[len(self.sequences[sequence]) - self.start]] = 1
        return logits


def run(
    engine: ScriptedEngine, prompt: bytes = b"prompt", **changes: Any
) -> tuple[str, GenerationStats]:
    arguments: dict[str, Any] = {"stop_ids": [END], "clock": lambda: engine.time, **changes}
    options = arguments.pop("options", GREEDY)
    steps = list(generate(engine, Bytes(), list(prompt), options, **arguments))
    assert engine.sequences == {}
    stats = steps[-1].stats
    assert stats is not None
    assert [step.stats for step in steps[:-1]] == [None] * stats.generated_tokens
    assert steps[-1].id is None
    return "".join(step.text for step in steps), stats


def test_until_a_stop_token() -> None:
    engine = ScriptedEngine(b"hello\xff")
    text, stats = run(engine)
    assert text == "hello"
    assert engine.appended == list(b"prompthello")
    assert stats == GenerationStats(
        prompt_tokens=6,
        generated_tokens=5,
        time_to_first_token=0.5,
        prefill_rate=12.0,
        decode_rate=8.0,
        finish_reason="stop",
    )


def test_steps_carry_ids_and_text_as_it_becomes_certain() -> None:
    engine = ScriptedEngine("a\u00e9b".encode() + b"\xff")
    steps = list(generate(engine, Bytes(), [1], GREEDY, stop_ids=[END]))
    assert steps[:-1] == [Token(97, "a"), Token(0xC3, ""), Token(0xA9, "\u00e9"), Token(98, "b")]


def test_the_time_between_tokens_is_not_the_engine_s() -> None:
    engine = ScriptedEngine(b"hello\xff")
    steps = []
    for step in generate(engine, Bytes(), [1], GREEDY, stop_ids=[END], clock=lambda: engine.time):
        steps.append(step)
        engine.time += 100
    assert steps[-1].stats is not None
    assert steps[-1].stats.decode_rate == 8.0


def test_until_the_limit() -> None:
    engine = ScriptedEngine(b"hello\xff")
    text, stats = run(engine, max_tokens=2)
    assert (text, stats.generated_tokens, stats.finish_reason) == ("he", 2, "length")
    assert engine.appended == list(b"prompth")  # the last token is not computed in vain
    _, stats = run(ScriptedEngine(b"hello\xff"), max_tokens=1)
    assert stats.decode_rate is None


def test_a_stop_token_right_at_the_start() -> None:
    text, stats = run(ScriptedEngine(b"\xff"))
    assert (text, stats.generated_tokens, stats.finish_reason) == ("", 0, "stop")


@pytest.mark.parametrize(("context", "tokens"), [(8, 100), (100, 8)])
def test_until_the_context_is_full(context: int, tokens: int) -> None:
    engine = ScriptedEngine(b"hello world", context, tokens)
    text, stats = run(engine)
    # Six of the prompt and two more are in the cache; the third is chosen and needs no room.
    assert (text, stats.finish_reason) == ("hel", "context")
    assert len(engine.appended) == 8
    assert run(ScriptedEngine(b"hello", 8), max_tokens=50)[1].finish_reason == "context"
    assert run(ScriptedEngine(b"hello", 8), max_tokens=3)[1].finish_reason == "length"


def test_a_window_never_fills() -> None:
    def sliding() -> ScriptedEngine:
        engine = ScriptedEngine(b"a" * 50 + b"\xff", context=-1, tokens=1000)
        engine.metadata |= {"sliding_window_size": 4, "attention_sink_size": 1}
        return engine

    text, stats = run(sliding(), max_tokens=40)
    assert (text, stats.finish_reason) == ("a" * 40, "length")
    text, stats = run(sliding())
    assert (text, stats.finish_reason) == ("a" * 50, "stop")


def test_a_prompt_that_just_fits() -> None:
    assert run(ScriptedEngine(b"x", 6))[0] == "x"


def test_a_prompt_that_is_too_long() -> None:
    engine = ScriptedEngine(b"x", 4)
    with pytest.raises(
        UsageError, match="has 6 tokens, 2 more than the context of 4; shorten it by 2"
    ):
        generate(engine, Bytes(), list(b"prompt"), GREEDY)


@pytest.mark.parametrize(
    ("prompt", "changes", "message"),
    [
        (b"", {}, "the prompt is empty"),
        (b"x", {"max_tokens": 0}, "max_tokens: 0 is out of range"),
        (b"x", {"stop_strings": ["a", ""]}, "a stop string is empty"),
    ],
)
def test_bad_arguments_are_found_before_the_engine_works(
    prompt: bytes, changes: dict[str, Any], message: str
) -> None:
    engine = ScriptedEngine(b"x")
    with pytest.raises(UsageError, match=message):
        generate(engine, Bytes(), list(prompt), GREEDY, **changes)
    assert engine.sequences == {}


def test_a_stop_string_split_over_tokens() -> None:
    engine = ScriptedEngine(b"one\n\ndef two\xff")
    text, stats = run(engine, stop_strings=["\ndef", "never"])
    assert (text, stats.finish_reason) == ("one\n", "stop")
    assert stats.generated_tokens == len("one\n\ndef")


def test_the_beginning_of_a_stop_string_is_text_if_it_is_not_completed() -> None:
    assert run(ScriptedEngine(b"ab<|en\xff"), stop_strings=["<|end|>"])[0] == "ab<|en"
    text, stats = run(ScriptedEngine(b"ab<|end|>"), stop_strings=["<|end|>"], max_tokens=5)
    assert (text, stats.finish_reason) == ("ab<|e", "length")


def test_a_stop_string_of_many_bytes() -> None:
    script = "a\u20ac\U0001f600b".encode() + b"\xff"
    assert run(ScriptedEngine(script), stop_strings=["\U0001f600"])[0] == "a\u20ac"


def test_an_incomplete_character_at_the_end() -> None:
    assert run(ScriptedEngine(b"a\xe2\x82\xff"))[0] == "a\ufffd"


def test_penalties_see_only_what_was_generated() -> None:
    class Stubborn(ScriptedEngine):
        def _logits(self, sequence: int) -> npt.NDArray[np.float32]:
            logits = np.zeros(VOCAB, np.float32)
            logits[[97, 98]] = 2.0, 1.5
            return logits

    options = SamplingOptions(temperature=0, frequency_penalty=0.4)
    assert run(Stubborn(b""), b"aaaa", options=options, max_tokens=6)[0] == "aababa"


def test_the_sequence_is_removed_when_the_caller_stops() -> None:
    engine = ScriptedEngine(b"hello\xff")
    steps = generate(engine, Bytes(), [1], GREEDY, sequence=3)
    next(steps)
    assert engine.sequences.keys() == {3}
    steps.close()  # type: ignore[attr-defined]
    assert engine.sequences == {}


def test_the_sequence_is_removed_when_the_engine_fails() -> None:
    engine = ScriptedEngine(b"hello\xff")
    engine.fail_at = 3
    with pytest.raises(RuntimeError):
        list(generate(engine, Bytes(), [1], GREEDY))
    assert engine.sequences == {}


TEXT = st.text("ab", max_size=16)
STRINGS = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)


def stopped_at(text: str, strings: list[str]) -> tuple[str, bool]:
    """By definition: the shortest beginning of the text that ends with a stop string."""
    for end in range(len(text) + 1):
        found = [string for string in strings if text[:end].endswith(string)]
        if found:
            return text[: end - max(map(len, found))], True
    return text, False


@given(TEXT, STRINGS, st.lists(st.integers(0, 16)))
def test_stop_strings_do_not_depend_on_how_text_is_cut(
    text: str, strings: list[str], cuts: list[int]
) -> None:
    stops = StopStrings(strings)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    out = "".join(stops.push(text[start:end]) for start, end in pairwise(edges))
    assert (out + stops.finish(), stops.stopped) == stopped_at(text, strings)


def test_no_more_is_held_back_than_needed() -> None:
    stops = StopStrings(["END"])
    assert [stops.push(piece) for piece in ("xE", "N", "x", "EN", "EN", "D")] == [
        "x",
        "",
        "ENx",
        "",
        "EN",
        "",
    ]
    assert stops.stopped
    assert stops.push("more") == ""
