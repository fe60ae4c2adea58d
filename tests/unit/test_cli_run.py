"""``edgec run`` on an engine that follows a script."""

from __future__ import annotations

import io
import signal
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from artifact_fakes import (
    CHAT_FORMAT,
    CONTEXT,
    STOP,
    ScriptedEngine,
    chat_config,
    make_artifact,
)
from cli_calls import call
from cli_session import I_, H, Opened

from edgec.cli.commands import run
from edgec.runtime.draft_length import DraftLength

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    found = Opened()
    monkeypatch.setattr(run, "open_session", found)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(make_artifact(tmp_path / "a").folder)


@pytest.fixture
def chat_folder(tmp_path: Path) -> str:
    config = chat_config(conv_template=CHAT_FORMAT)
    return str(make_artifact(tmp_path / "chat", config=config).folder)


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_text_goes_to_stdout_and_speed_to_stderr(opened: Opened, folder: str) -> None:
    done = call("run", folder, "hi", "--threads", "3", "--context", "9")
    assert (done.code, done.out) == (0, "hi\n")
    assert "1 prompt token · first token after " in done.err
    assert "decode" in done.err
    assert opened.options == {"threads": 3, "context": 9}


def test_quiet_prints_only_the_text(opened: Opened, folder: str) -> None:
    done = call("--quiet", "run", folder, "hi")
    assert (done.out, done.err) == ("hi\n", "")


def test_json_is_one_object(opened: Opened, folder: str) -> None:
    opened.engine.script = [H] * 50
    done = call("run", folder, "hi", "--json", "--max-tokens", "3", "--seed", "7")
    assert done.data["schema"] == "edgec.run/v1"
    assert (done.data["text"], done.data["token_ids"]) == ("hhh", [H] * 3)
    assert (done.data["finish_reason"], done.data["generated_tokens"]) == ("length", 3)
    assert done.data["sampling"]["seed"] == 7
    assert done.err == ""


def test_text_that_is_continued_has_a_limit_of_its_own(opened: Opened, folder: str) -> None:
    opened.engine.script = [H] * 1000
    opened.engine.capacity = type(opened.engine.capacity)(1, 1000, 16)
    opened.engine.metadata["context_window_size"] = 1000
    assert call("run", folder, "hi", "--json").data["generated_tokens"] == 256


def test_an_answer_has_no_limit_but_the_context(opened: Opened, chat_folder: str) -> None:
    opened.engine.script = [H] * 1000
    data = call("run", chat_folder, "hi", "--json").data
    assert data["finish_reason"] == "context"
    assert data["prompt_tokens"] + data["generated_tokens"] == CONTEXT + 1
    assert "(the context is full)" in call("run", chat_folder, "hi").err


def test_a_prompt_is_read_from_stdin_without_its_last_line_end(
    opened: Opened, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "hi\n\n")
    assert call("run", folder, "--json").data["prompt"] == "hi\n"


def test_an_empty_prompt_is_refused(
    opened: Opened, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "")
    done = call("run", folder)
    assert done.code == 2
    assert "the prompt is empty" in done.err


def test_sampling_comes_from_the_artifact_unless_given(opened: Opened, tmp_path: Path) -> None:
    config = chat_config(temperature=0.25, top_p=0.5, repetition_penalty=1.5)
    folder = str(make_artifact(tmp_path / "b", config=config).folder)
    sampling = call("run", folder, "hi", "--json", "--top-p", "0.75").data["sampling"]
    assert (sampling["temperature"], sampling["top_p"]) == (0.25, 0.75)
    assert sampling["repetition_penalty"] == 1.5


@pytest.mark.parametrize(
    ("option", "value"),
    [("--temperature", "-1"), ("--top-p", "0"), ("--repetition-penalty", "nan"), ("--seed", "-1")],
)
def test_options_out_of_range_are_refused_before_loading(
    opened: Opened, folder: str, option: str, value: str
) -> None:
    done = call("run", folder, "hi", option, value)
    assert done.code == 2
    assert "out of range" in done.err
    assert opened.options == {}


@pytest.mark.parametrize(
    "arguments", [["--max-tokens", "0"], ["--threads", "0"], ["--context", "0"], ["--seed", "x"]]
)
def test_numbers_that_are_none_are_usage_errors(
    opened: Opened, folder: str, arguments: list[str]
) -> None:
    assert call("run", folder, "hi", *arguments).code == 2


def test_an_artifact_that_is_not_there(opened: Opened, tmp_path: Path) -> None:
    done = call("run", "tinypy", "hi", "--out", str(tmp_path))
    assert done.code == 2
    assert "run: edgec build tinypy" in done.err


# --speculative


class Guessing(ScriptedEngine):
    """Takes tokens at a time, and what it said of them back."""

    def __init__(self, script: Sequence[int]) -> None:
        super().__init__(script)
        self.metadata["exact_verification"] = True

    def all_logits(self, sequence: int, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        self.calls.append(("pass", len(tokens)))
        return np.stack([self._append(sequence, [token]) for token in tokens])

    def pop(self, sequence: int, tokens: int) -> None:
        super().pop(sequence, tokens)
        self.said -= tokens


@pytest.fixture
def guessing(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> Opened:
    opened.engine = Guessing([H] * 50)
    monkeypatch.setattr(DraftLength, "choose", lambda _self, _match, most: min(3, most))
    return opened


def test_guessed_tokens_are_counted(guessing: Opened, folder: str) -> None:
    arguments = ("run", folder, "hi", "--max-tokens", "45", "--speculative", "ngram")
    data = call(*arguments, "--json").data
    assert data["token_ids"] == [H] * 45
    assert data["speculation"]["accepted"] > 10
    guessing.engine = Guessing([H] * 50)
    done = call(*arguments)
    assert done.out == "h" * 45 + "\n"
    stats = data["speculation"]
    assert f"{stats['accepted']} of {stats['drafted']} guessed tokens accepted" in done.err
    assert f"{stats['tokens_per_pass']:.2f} tokens per pass" in done.err


def test_nothing_is_guessed_unless_asked_for(guessing: Opened, folder: str) -> None:
    assert call("run", folder, "hi", "--json").data["speculation"] is None
    assert {name for name, _ in guessing.engine.calls} == {"add", "prefill", "decode", "remove"}


def test_a_chat_guesses_too(
    guessing: Opened, chat_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    guessing.engine.script = [H] * 30 + [STOP]
    typed(monkeypatch, "")
    done = call("run", chat_folder, "a", "--chat", "--speculative", "ngram", "--draft-max", "2")
    assert done.out == "h" * 30 + "\n"
    assert "guessed tokens accepted" in done.err


def test_a_library_where_guesses_could_change_the_text_is_refused(
    opened: Opened, folder: str, chat_folder: str
) -> None:
    for arguments in ((folder, "hi"), (chat_folder, "hi", "--chat")):
        done = call("run", *arguments, "--speculative", "ngram")
        assert done.code == 2
        assert f"{arguments[0]}: several tokens in one pass give other logits" in done.err
        assert "build for a CPU target" in done.err
    assert opened.engine.calls == []


@pytest.mark.parametrize(
    ("config", "arguments", "message"),
    [
        ({}, ["--draft-max", "2"], "--draft-max is for speculative decoding; add --speculative"),
        (
            {"sliding_window_size": 32, "attention_sink_size": 4},
            ["--speculative", "ngram"],
            "can't be taken back",
        ),
    ],
)
def test_what_can_not_be_guessed_is_refused_before_loading(
    opened: Opened, tmp_path: Path, config: dict[str, int], arguments: list[str], message: str
) -> None:
    folder = str(make_artifact(tmp_path / "b", config=chat_config(**config)).folder)
    done = call("run", folder, "hi", *arguments)
    assert done.code == 2
    assert message in done.err
    assert opened.options == {}


# --chat


def test_a_conversation(opened: Opened, chat_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.engine.script = [H, STOP, I_, STOP, H, I_, STOP]
    typed(monkeypatch, "a\n\n/what\na\n/reset\na\n/exit\nnever\n")
    done = call("run", chat_folder, "--chat")
    assert done.code == 0
    assert done.out.splitlines() == ["h", "i", "hi"]
    assert "there is no command /what" in done.err
    assert done.err.count("prompt tokens") == 3
    assert "· 1 token\n" in done.err
    assert [name for name, _ in opened.engine.calls].count("remove") == 1


def test_the_prompt_is_the_first_message_and_the_end_of_input_ends_it(
    opened: Opened, chat_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "")
    assert call("run", chat_folder, "a", "--chat").out.splitlines() == ["hi"]


def test_a_conversation_that_outgrows_the_context_goes_on(
    opened: Opened, chat_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, f"{'long ' * CONTEXT}\na\n")
    done = call("run", chat_folder, "--chat")
    assert done.code == 0
    assert "/reset begins a new conversation" in done.err.splitlines()[2]
    assert done.out == "hi\n"


def test_ctrl_c_stops_an_answer_and_not_the_conversation(
    opened: Opened, chat_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(ScriptedEngine):
        def decode(self, sequence: int, token: int) -> Any:
            if self.said == 3:
                signal.raise_signal(signal.SIGINT)
            return super().decode(sequence, token)

    opened.engine = Interrupted([H] * 6)
    typed(monkeypatch, "a\n")
    before = signal.getsignal(signal.SIGINT)
    done = call("run", chat_folder, "--chat")
    assert done.code == 0
    assert done.out == "hhhh\n"
    assert "stopped" in done.err
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_interrupts(
    opened: Opened, chat_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stuck(ScriptedEngine):
        def decode(self, sequence: int, token: int) -> Any:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            return super().decode(sequence, token)

    opened.engine = Stuck([H] * 6)
    typed(monkeypatch, "a\nb\n")
    assert call("run", chat_folder, "--chat").code == 130


def test_chat_is_refused_for_a_model_without_a_format(opened: Opened, folder: str) -> None:
    done = call("run", folder, "--chat")
    assert done.code == 2
    assert "knows no chat format" in done.err
    assert opened.options == {}


def test_chat_has_no_json(opened: Opened, chat_folder: str) -> None:
    done = call("run", chat_folder, "--chat", "--json")
    assert done.code == 2
    assert done.data["schema"] == "edgec.error/v1"
