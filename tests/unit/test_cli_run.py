"""``edgec run``, ``bench`` and ``verify`` on an engine that follows a script."""

from __future__ import annotations

import io
import json
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
from artifact_fakes import (
    CHAT_FORMAT,
    CONTEXT,
    STOP,
    FakeDevice,
    ScriptedEngine,
    chat_config,
    make_artifact,
)
from cli_calls import call

from edgec.cli.commands import bench, run, verify
from edgec.errors import VerificationError
from edgec.runtime.session import Session
from edgec.verification.repeat import Files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgec.artifacts.artifact import Artifact

H, I_ = 260, 261


class Opened:
    """What was opened, and the engine that answers."""

    def __init__(self) -> None:
        self.engine = ScriptedEngine([H, I_, STOP])
        self.options: dict[str, Any] = {}

    def __call__(self, artifact: Artifact, **options: Any) -> Session:
        self.options = options
        return Session(artifact, self.engine, artifact.chat_config, 2, 0.5)  # type: ignore[arg-type]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    found = Opened()
    monkeypatch.setattr(run, "open_session", found)
    monkeypatch.setattr(bench, "open_session", found)
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


# run


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


# run --chat


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


# bench


def test_bench_prints_a_table(opened: Opened, folder: str) -> None:
    opened.engine.script = [H] * 1000
    arguments = ["--prompt-tokens", "10", "--generate-tokens", "5", "--repeat", "2"]
    done = call("bench", folder, *arguments)
    assert done.code == 0
    assert [line.split("  ")[0] for line in done.out.splitlines()] == [
        "MEASURED",
        "time to first token",
        "prefill",
        "decode",
        "latency per token, P50",
        "latency per token, P90",
    ]
    assert "peak memory" in done.err


def test_bench_in_json(opened: Opened, folder: str) -> None:
    opened.engine.script = [H] * 1000
    done = call("bench", folder, "--prompt-tokens", "10", "--generate-tokens", "5", "--json")
    data = done.data
    assert data["schema"] == "edgec.bench/v1"
    assert data["workload"] == {"prompt_tokens": 10, "generate_tokens": 5, "repeat": 5}
    assert data["decode_tokens_per_s"].keys() == {"min", "median", "max"}
    assert data["memory"]["kv_cache_bytes"] == 4096
    assert data["memory"]["peak_rss_bytes"] > 0
    assert (data["threads"], data["load_s"]) == (2, 0.5)
    assert data["machine"]["cpu"]


def test_bench_on_a_gpu_says_how_near_the_limit_of_its_memory_it_is(
    opened: Opened, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.engine.script = [H] * 1000
    opened.engine.device = FakeDevice(2, "NVIDIA Toy")
    monkeypatch.setattr(bench, "copy_rate", lambda _device: 2e9)
    arguments = ["bench", folder, "--prompt-tokens", "10", "--generate-tokens", "4"]
    done = call(*arguments)
    assert "NVIDIA Toy, 2 threads" in done.err
    assert "of the 2 GB/s at which this GPU copies memory" in done.err
    data = call(*arguments, "--json").data
    assert data["machine"]["device"] == "NVIDIA Toy"
    # 4096 bytes are 64 tokens of keys and values, of which 10 + 4 / 2 are read.
    assert (data["decode_weights_bytes"], data["decode_kv_cache_bytes"]) == (4000, 12 * 64)
    rate = data["decode_tokens_per_s"]["median"]
    assert data["decode_share_of_memory_copy"] == pytest.approx(4768 * rate / 2e9, rel=1e-3)


def test_bench_refuses_more_than_the_context(opened: Opened, folder: str) -> None:
    done = call("bench", folder, "--json")
    assert done.code == 2
    assert done.data["schema"] == "edgec.error/v1"


# verify


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the checks answer; an exception is raised."""
    answers: dict[str, Any] = {
        "files": Files(4, 2048),
        "golden": {
            "positions": 3,
            "tolerance": 0.001,
            "artifact": {"prefill": 1e-6, "decode": 2e-6},
            "reference": {"prefill": 3e-6, "decode": 4e-6},
        },
        "kernels": {
            "checked": {
                "take": {"calls": 3, "max_error": 0.0},
                "norm": {"calls": 4, "max_error": 5.7e-4},
            },
            "unchecked": {"softmax": 1},
            "not_called": [f"other_{number}" for number in range(9)],
            "sampling": {"apply_penalty_inplace": 1e-8, "softmax_with_temperature": 2e-8},
        },
        "reference": {
            "text": {"tokens": 2000, "artifact_tokens": 512, "same": True},
            "compiler": {"max_logit_error": 5e-5, "tolerance": 0.001},
            "total": {
                "kl": 0.1,
                "top1": 0.9,
                "perplexity_ratio": 1.0,
                "perplexity_ratio_error": 0.1,
            },
            "sources": [],
        },
    }

    def answering(name: str) -> Callable[..., Any]:
        def check(*arguments: Any) -> Any:
            asked = [item for item in arguments[1:] if item is None or isinstance(item, str)]
            answers.setdefault("asked", []).append((name, *asked))
            if isinstance(answers[name], Exception):
                raise answers[name]
            return answers[name]

        return check

    answers["shown"] = True
    monkeypatch.setattr(
        verify,
        "shows_kernels",
        lambda artifact, _standin: answers["shown"] and artifact.reference_kernels.is_file(),
    )
    for name in ("files", "golden", "kernels", "reference"):
        monkeypatch.setattr(verify, f"repeat_{name}", answering(name))
    return answers


def test_verify_prints_figures(checks: dict[str, Any], folder: str) -> None:
    done = call("verify", folder)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0].split() == ["COMPUTED", "COMPARED", "WITH", "MAX", "|Δlogit|", "LIMIT"]
    assert len(lines) == 5
    assert lines[4].split()[-2:] == ["4.0e-06", "1.0e-03"]
    assert "4 files, 2.0 KiB" in done.err
    assert [name for name, *_ in checks["asked"]] == ["files", "golden"]


@pytest.mark.parametrize(
    ("arguments", "source"), [(["--reference"], ""), (["--reference", "some/model"], "some/model")]
)
def test_the_reference_is_run_when_it_is_asked_for(
    checks: dict[str, Any], folder: str, arguments: list[str], source: str
) -> None:
    done = call("verify", folder, *arguments)
    assert done.code == 0
    assert ("reference", source, None) in checks["asked"]
    assert "text of 512 tokens" in done.out
    assert "against the original model: KL 0.1000 nats" in done.out
    assert "isn't the one of the build" not in done.err
    checks["reference"]["text"]["same"] = False
    assert "isn't the one of the build" in call("verify", folder, "--reference").err


@pytest.fixture
def device_folder(tmp_path: Path) -> str:
    """An artifact for another device, whose kernels can be checked alone."""
    files = {"kernels.json": b"{}"}
    return str(make_artifact(tmp_path / "device", files=files, standin="emulator").folder)


def test_verify_prints_what_was_found_of_kernels(
    checks: dict[str, Any], device_folder: str
) -> None:
    done = call("verify", device_folder)
    assert done.code == 0
    assert done.out.splitlines()[:5] == [
        "kernels     2 checked alone on the stand-in emulator, in 7 calls",
        "max error   5.7e-04 (norm) of the scale of its results",
        "unchecked   1 without reference: softmax",
        "not called  9: other_0, other_1, other_2, other_3, other_4, other_5 and 3 more",
        "sampling    2 functions, max error 2.0e-08 (softmax_with_temperature)",
    ]
    assert done.out.splitlines()[5].startswith("COMPUTED")
    assert checks["asked"] == [("files",), ("kernels", None), ("golden", None)]
    data = call("verify", device_folder, "--json").data
    assert data["standin"] == "emulator"
    assert data["kernels"] == checks["kernels"]


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        (
            {"proven": True},
            "code        the machine code for sm_80, sm_90 is what the kernels' text compiles to",
        ),
        (
            {"proven": False, "reason": "nvrtc 12.6 is missing"},
            (
                "code        the machine code for sm_80, sm_90 was not compared with the kernels'"
                " text: nvrtc 12.6 is missing"
            ),
        ),
    ],
)
def test_machine_code_is_compared_with_its_text(
    checks: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    facts: dict[str, Any],
    line: str,
) -> None:
    files = {"kernels.json": b"{}", "lib/kernels.cuda.json": b"{}"}
    folder = str(make_artifact(tmp_path / "cuda", files=files, standin="emulator").folder)
    answer = {"architectures": ["sm_80", "sm_90"], "parts": {}, **facts}
    monkeypatch.setattr(verify, "prove_machine_code", lambda _path, _progress: answer)
    done = call("verify", folder)
    assert done.out.splitlines()[0] == line
    assert call("verify", folder, "--json").data["machine_code"] == answer
    assert call("verify", folder, "--no-kernels", "--json").data["machine_code"] is None


def test_kernels_may_be_left_out(checks: dict[str, Any], device_folder: str) -> None:
    done = call("verify", device_folder, "--no-kernels", "--json")
    assert done.data["kernels"] is None
    assert [name for name, *_ in checks["asked"]] == ["files", "golden"]


def test_a_stand_in_that_shows_no_kernels_says_nothing_of_them(
    checks: dict[str, Any], device_folder: str
) -> None:
    checks["shown"] = False
    done = call("verify", device_folder)
    assert done.code == 0
    assert done.out.startswith("COMPUTED")
    assert "no kernel was checked alone" in done.err


@pytest.mark.parametrize(
    ("arguments", "standin"),
    [
        (["--standin", "pocl"], "pocl"),
        (["--device", "cuda"], "gpu"),
        (["--device", "cuda", "--standin", "gpu"], "gpu"),
    ],
)
def test_the_stand_in_may_be_chosen(
    checks: dict[str, Any], device_folder: str, arguments: list[str], standin: str
) -> None:
    done = call("verify", device_folder, "--reference", "some/model", *arguments, "--json")
    assert done.data["standin"] == standin
    assert checks["asked"][1:] == [
        ("kernels", standin),
        ("golden", standin),
        ("reference", "some/model", standin),
    ]


def test_a_device_and_another_stand_in_are_refused(
    checks: dict[str, Any], device_folder: str
) -> None:
    done = call("verify", device_folder, "--device", "cuda", "--standin", "pocl")
    assert done.code == 2
    assert done.err == (
        "error: edgec verify: --device cuda means --standin gpu, and pocl is named too; leave one"
        " of them out\n"
    )
    assert "asked" not in checks


def test_verify_in_json(checks: dict[str, Any], folder: str) -> None:
    done = call("verify", folder, "--json")
    assert done.data["golden"]["artifact"]["decode"] == 2e-6
    assert done.data["files"] == {"count": 4, "bytes": 2048}
    assert done.data["reference"] is None
    assert done.err == ""


@pytest.mark.parametrize("name", ["files", "golden"])
def test_a_mismatch_ends_with_code_5(checks: dict[str, Any], folder: str, name: str) -> None:
    checks[name] = VerificationError("differs")
    done = call("verify", folder, "--json")
    assert done.code == 5
    assert json.loads(done.out)["what"] == "differs"


def test_an_artifact_without_golden_outputs_says_so(checks: dict[str, Any], folder: str) -> None:
    checks["golden"] = None
    done = call("verify", folder)
    assert (done.code, done.out) == (0, "")
    assert "no golden outputs" in done.err
