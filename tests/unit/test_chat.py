"""Conversations: what is said again is computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from artifact_fakes import CHAT_FORMAT, CONTEXT, STOP, ScriptedEngine
from chat_fakes import sentencepiece_like
from hypothesis import given
from hypothesis import strategies as st

from edgec.artifacts.conversation import Conversation
from edgec.errors import UsageError
from edgec.runtime.chat import Chat, require_chat
from edgec.runtime.prompt import Message
from edgec.runtime.reuse import ReusedSequence
from edgec.runtime.sampling import SamplingOptions
from edgec.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = Conversation.model_validate(CHAT_FORMAT)
GREEDY = SamplingOptions(temperature=0)
H = 260  # "h" in the tokenizer of the fakes
I_ = 261


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer(sentencepiece_like(tmp_path / "tokenizer", metaspace=False))


def make_chat(tokenizer: Tokenizer, script: list[int]) -> tuple[Chat, ScriptedEngine]:
    engine = ScriptedEngine(script)
    return Chat(engine, tokenizer, FORMAT, GREEDY), engine


def test_a_second_turn_prefills_only_what_is_new(tokenizer: Tokenizer) -> None:
    chat, engine = make_chat(tokenizer, [H, I_, STOP, H, STOP])
    first = list(chat.answer("a"))
    computed = len(engine.sequences[0])
    assert "".join(step.text for step in first) == "hi"
    second = list(chat.answer("b"))
    stats = second[-1].stats
    assert stats is not None
    prefills = [count for name, count in engine.calls if name == "prefill"]
    assert len(prefills) == 2
    assert prefills[1] < stats.prompt_tokens
    assert prefills[1] + computed >= stats.prompt_tokens - 2
    assert [name for name, _ in engine.calls].count("add") == 1
    assert [(m.role, m.content) for m in chat.messages] == [
        ("user", "a"),
        ("assistant", "hi"),
        ("user", "b"),
        ("assistant", "h"),
    ]


def test_the_prefill_rate_counts_what_was_computed(tokenizer: Tokenizer) -> None:
    chat, engine = make_chat(tokenizer, [H, STOP, H, STOP])
    list(chat.answer("a"))
    reused = len(engine.sequences[0])
    stats = list(chat.answer("b"))[-1].stats
    assert stats is not None
    seconds = (stats.prompt_tokens - reused) / stats.prefill_rate
    assert 0 < seconds <= stats.time_to_first_token * 1.01


def test_a_stopped_answer_stays_in_the_conversation(tokenizer: Tokenizer) -> None:
    chat, _engine = make_chat(tokenizer, [H, H, H, H, H, STOP, I_, STOP])
    steps = chat.answer("a")
    next(steps)
    next(steps)
    steps.close()
    assert chat.messages[-1] == Message("assistant", "hh")
    list(chat.answer("b"))
    assert len(chat.messages) == 4


def test_an_answer_that_never_began_is_forgotten(tokenizer: Tokenizer) -> None:
    chat, _engine = make_chat(tokenizer, [H, STOP])
    chat.answer("a").close()
    assert chat.messages == []


def test_an_interrupt_in_the_engine_begins_anew(tokenizer: Tokenizer) -> None:
    chat, engine = make_chat(tokenizer, [H, H, H, STOP])
    engine.fail_after = 2
    with pytest.raises(KeyboardInterrupt):
        list(chat.answer("a"))
    engine.fail_after = None
    list(chat.answer("b"))
    names = [name for name, _ in engine.calls]
    assert names.count("remove") == 1
    assert engine.calls[names.index("remove") + 1][0] == "add"


def test_clear_forgets(tokenizer: Tokenizer) -> None:
    chat, engine = make_chat(tokenizer, [H, STOP])
    list(chat.answer("a"))
    chat.clear()
    assert chat.messages == []
    assert not engine.sequences


def test_a_conversation_longer_than_the_context_is_refused_and_kept(tokenizer: Tokenizer) -> None:
    chat, _engine = make_chat(tokenizer, [H, STOP])
    list(chat.answer("a"))
    before = list(chat.messages)
    with pytest.raises(UsageError, match=f"context of {CONTEXT}"):
        chat.answer("a long story " * 20)
    assert chat.messages == before


def test_a_model_that_only_continues_text_has_no_chat() -> None:
    require_chat(FORMAT, "a")
    with pytest.raises(UsageError, match=r"knows no chat format; .* without --chat"):
        require_chat(FORMAT.model_copy(update={"name": "completion"}), "a")


class Remembering(ScriptedEngine):
    """Its logits are the sequence itself, so that a wrong cache can't hide."""

    def _append(self, sequence: int, tokens: list[int]) -> np.ndarray:
        self.sequences[sequence] += tokens
        return np.asarray(self.sequences[sequence], np.float32)


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=8), st.integers(0, 3)),
        max_size=8,
    )
)
def test_whatever_was_there_before_the_cache_holds_the_prompt(
    turns: list[tuple[list[int], int]],
) -> None:
    engine = Remembering()
    reused = ReusedSequence(engine)
    for prompt, decodes in turns:
        reused.add(7)
        before = list(reused.tokens)
        held = reused.prefill(7, prompt)
        assert held.tolist() == prompt
        assert 1 <= reused.prefilled <= len(prompt)
        if before and before[0] == prompt[0] and len(prompt) > 1:
            assert reused.prefilled < len(prompt)
        for token in range(decodes):
            held = reused.decode(7, token)
        assert held.tolist() == [*prompt, *range(decodes)] == reused.tokens
        reused.remove(7)


class Sliding(Remembering):
    """Can't take tokens back once its window of 6 has slid."""

    def __init__(self) -> None:
        super().__init__()
        self.metadata = {"sliding_window_size": 6, "attention_sink_size": 2}

    def pop(self, sequence: int, tokens: int) -> None:
        assert len(self.sequences[sequence]) <= 6
        super().pop(sequence, tokens)


@given(st.lists(st.tuples(st.lists(st.integers(0, 1), min_size=1, max_size=9), st.integers(0, 3))))
def test_nothing_is_taken_back_from_a_window_that_has_slid(
    turns: list[tuple[list[int], int]],
) -> None:
    engine = Sliding()
    reused = ReusedSequence(engine)
    for prompt, decodes in turns:
        before = list(reused.tokens)
        assert reused.prefill(7, prompt).tolist() == prompt
        if before == prompt[: len(before)] and 0 < len(before) < len(prompt):
            assert reused.prefilled == len(prompt) - len(before)
        for token in range(decodes):
            reused.decode(7, token)
