"""What is asked of WebLLM and what comes back, with a program in the browser's place."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from edgec.errors import ToolchainError, VerificationError
from edgec.standins.webllm import Session, ask, browser, greedy, session

if TYPE_CHECKING:
    from pathlib import Path

# Speaks as driver.mjs does; what the page would answer depends on the prompt.
DRIVER = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    messages, value, ok = [], None, True
    operation = asked["operation"]
    if operation == "launch":
        value = {"version": "1.2.3"}
    elif operation == "run":
        name, argument = asked["operation_in_page"], asked["argument"]
        value = {"ok": True, "value": None, "problems": []}
        if name == "adapter":
            value["value"] = {"name": "toy", "features": []}
        elif name == "load":
            value["value"] = {"seconds": 1.5}
            if "model_manifest" in argument["record"]:
                messages = ["log: " + argument["record"]["model_manifest"]]
            if argument["record"]["required_features"]:
                value = {"ok": False, "name": "ShaderF16SupportError", "message": "no f16",
                    "problems": []}
        elif name == "stats":
            value["value"] = json.dumps(argument)
        elif name == "ask":
            request = argument["request"]
            messages = ["log: hello"]
            value["value"] = {"pieces": ["a", "b"], "token_ids": [1, 2], "prompt_ids": [3],
                "finish_reason": "stop", "usage": argument, "logprobs": [], "seconds": 2.0,
                "first_piece_seconds": 1.0}
            if request.get("prompt") == "raise":
                messages = ["error: bad", "error: bad", "log: x"]
                value = {"ok": False, "name": "Error", "message": "it broke", "problems": ["lost"]}
            if request.get("prompt") == "problem":
                value["problems"] = ["invalid kernel"]
            if request.get("prompt") == "late":
                ok = False
            if request.get("prompt") == "end":
                print("no memory", file=sys.stderr)
                raise SystemExit(1)
    answer = {"ok": ok, "value": value, "messages": messages}
    if not ok:
        answer["message"] = "no answer in 600 s"
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture(autouse=True)
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "driver.py"
    program.write_text(DRIVER)
    monkeypatch.setattr(browser, "_DRIVER", program)
    monkeypatch.setattr(browser, "node", lambda: sys.executable)
    monkeypatch.setattr(browser, "find_browser", lambda: "toy-browser")
    monkeypatch.setattr(session, "npm_folder", lambda _name, folder: folder)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    folder = tmp_path / "artifact"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "model.wasm").write_bytes(b"\0asm")
    (folder / "model").mkdir()
    scheme = {"quantization": "q4f32_1"}
    (folder / "model" / "mlc-chat-config.json").write_text(json.dumps(scheme))
    return folder


def test_one_question(artifact: Path) -> None:
    answer = ask(artifact, {"prompt": "p", "max_tokens": 3})
    assert answer.text == "ab"
    assert answer.token_ids == (1, 2)
    assert answer.messages == ("log: hello",)
    assert answer.usage == {"kind": "completion", "request": {"prompt": "p", "max_tokens": 3}}
    assert ask(artifact, {"messages": []}).usage["kind"] == "chat"


def test_greedy_asks_for_the_most_likely_tokens(artifact: Path) -> None:
    answer = greedy(artifact / "lib" / "model.wasm", artifact / "model", "p", 5)
    wanted = {
        "prompt": "p",
        "max_tokens": 5,
        "temperature": 0,
        "top_p": 1,
        "ignore_eos": True,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "repetition_penalty": 1,
    }
    assert answer.usage["request"] == wanted


def test_several_questions_in_one_session(artifact: Path) -> None:
    with Session(artifact / "lib" / "model.wasm", artifact / "model") as opened:
        assert (opened.adapter, opened.browser_version, opened.load_seconds) == (
            "toy",
            "1.2.3",
            1.5,
        )
        said = opened.chat("hi", temperature=0.5).usage["request"]
        assert said == {"messages": [{"role": "user", "content": "hi"}], "temperature": 0.5}
        opened.reset()
        opened.complete("p")
        assert opened.messages == ["log: hello"] * 2
        assert opened.stats() == "{}"


def test_a_model_manifest_is_named_where_it_is_asked_for(artifact: Path) -> None:
    library, weights = artifact / "lib" / "model.wasm", artifact / "model"
    with Session(library, weights, model_manifest="a.json") as opened:
        assert opened.messages == ["log: a.json"]
    with Session(library, weights) as opened:
        assert opened.messages == []


def test_errors_come_with_what_the_page_said(artifact: Path) -> None:
    with Session(artifact / "lib" / "model.wasm", artifact / "model") as opened:
        with pytest.raises(VerificationError) as caught:
            opened.complete("raise")
        assert "WebLLM: it broke; lost; error: bad; every" in str(caught.value)
        # An answer is no answer if the device complained.
        with pytest.raises(VerificationError, match="WebLLM: invalid kernel"):
            opened.complete("problem")
        with pytest.raises(VerificationError, match="no answer in 600 s"):
            opened.complete("late")
        with pytest.raises(VerificationError, match=r"driver ended \(no memory\)"):
            opened.complete("end")


def test_float16_is_asked_for_where_it_is_needed(artifact: Path) -> None:
    config = artifact / "model" / "mlc-chat-config.json"
    config.write_text(json.dumps({"quantization": "q4f16_1"}))
    with pytest.raises(ToolchainError, match="no f16; use a browser"):
        ask(artifact, {"prompt": "p"})


def test_a_missing_browser_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CHROMIUM", raising=False)
    with pytest.raises(ToolchainError, match=r"no Chromium, in which WebLLM runs; .*apt-get"):
        browser.find_browser()
    monkeypatch.setenv("CHROMIUM", "no-such-browser")
    with pytest.raises(ToolchainError, match="CHROMIUM names 'no-such-browser'"):
        browser.find_browser()
