"""``edgec build`` with a pipeline that builds nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_calls import call

from edgec.cli.commands import build as module
from edgec.errors import VerificationError
from edgec.pipeline.build import StageResult
from edgec.pipeline.events import StageFinished, StageHit, StageStarted
from edgec.pipeline.run import BuildResult

MANIFEST = {
    "files": {"lib/x.so": {"bytes": 1 << 20}, "model/params.bin": {"bytes": 3 << 20}},
    "quantization": {"scheme": "q4f32_1", "method": "rtn", "bits_per_weight": 5.0218},
    "memory": {
        "context_length": 1024,
        "weights_bytes": 3 << 20,
        "kv_cache_bytes": 6 << 20,
        "workspace_bytes": 1 << 20,
        "total_bytes": 10 << 20,
    },
}
FIGURES = {
    "kl": 0.02371,
    "top1": 0.8921,
    "perplexity_ratio": 1.01912,
    "perplexity_ratio_error": 0.00501,
    "max_logit_error": 3.14e-5,
}
FIGURES_TEXT = "KL 0.0237 nats, top-1 89.2 %, perplexity ratio 1.0191 ± 0.0050"
REPORT: dict[str, Any] = {
    "schema": "edgec.report/v1",
    "verification": {"standin": "native", "ran": True},
    "text": {"tokens": 2000},
    "compiler": {**FIGURES, "tolerance": 1e-3},
    "quantizer": FIGURES,
    "total": FIGURES,
    "paths": {
        "prefill": 1e-5,
        "chunked_prefill": 2e-5,
        "decode": 3e-5,
        "batch": 4e-5,
        "batch_size": 3,
    },
}

PATHS = "prefill 1.0e-05, chunks 2.0e-05, decode 3.0e-05, batch of 3 4.0e-05"

Calls = list[dict[str, Any]]


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Calls]:
    """A pipeline that runs one stage or none, and remembers how it was called."""
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def install(*, hit: bool = False, report: dict[str, Any] | None = None) -> Calls:
        calls: Calls = []

        def build(plan: Any, place: Path, store: Any, digests: Any, **options: Any) -> BuildResult:
            calls.append({"plan": plan, "place": place, **options})
            events = options["events"]
            events(StageHit("checkpoint", "aa"))
            if not hit:
                events(StageStarted("compile", "bb"))
                events(StageFinished("compile", "bb", 2.5))
            stages = {"compile": StageResult("compile", "bb", tmp_path, hit, 0 if hit else 2.5)}
            found = REPORT if report is None else report
            return BuildResult(place, MANIFEST, found, stages, 2.75, up_to_date=hit)

        monkeypatch.setattr(module, "build", build)
        return calls

    return install


def test_the_artifact_is_on_stdout_and_the_rest_on_stderr(pipeline: Callable[..., Calls]) -> None:
    pipeline()
    called = call("build", "tinypy", "-t", "x86-64-v3")
    assert called.code == 0
    assert called.out == "artifacts/tinypy/x86-64-v3\n"
    lines = called.err.splitlines()
    assert lines[0].startswith("hash: done in ")
    assert lines[1:] == [
        "checkpoint: cached",
        "compile: done in 2.5 s",
        "tinypy for x86-64-v3 in 2.8 s",
        "  size      4.0 MiB, of which weights 3.0 MiB (5.02 bits per weight)",
        "  memory    10.0 MiB at 1024 tokens: weights 3.0 MiB, KV cache 6.0 MiB, workspace 1.0 MiB",
        "  quality   KL 0.0237 nats, top-1 89.2 %, perplexity ratio 1.0191 ± 0.0050 on 2000 tokens",
        (
            "  quantizer KL 0.0237 nats, top-1 89.2 %, perplexity ratio 1.0191 ± 0.0050 with the stored"
            " weights in PyTorch"
        ),
        "  compiler  max |Δlogit| 3.1e-05 (limit 0.001)",
        f"  paths     max |Δlogit| {PATHS}",
    ]


@pytest.mark.parametrize(
    ("report", "lines"),
    [
        ({}, []),
        (
            {"verification": {"ran": False, "reason": "switched off with --no-verify"}},
            ["  verified  no: switched off with --no-verify"],
        ),
        (
            {
                "verification": {"ran": False, "reason": "this CPU lacks amx_int8"},
                "quantizer": FIGURES,
            },
            [
                "  verified  no: this CPU lacks amx_int8",
                "  quality   KL 0.0237 nats, top-1 89.2 %, perplexity ratio 1.0191 ± 0.0050",
            ],
        ),
        ({"paths": {"decode": 1e-5}}, ["  paths     max |Δlogit| decode 1.0e-05"]),
        (
            {
                "text": {"tokens": 2000, "artifact_tokens": 512},
                "total": FIGURES,
                "quantizer": FIGURES,
            },
            [
                f"  quality   {FIGURES_TEXT} on 512 tokens",
                f"  quantizer {FIGURES_TEXT} with the stored weights in PyTorch on 2000 tokens",
            ],
        ),
        (
            {"text": {"tokens": 2000, "artifact_tokens": 0}, "quantizer": FIGURES},
            [f"  quality   {FIGURES_TEXT} on 2000 tokens"],
        ),
        (
            {
                "verification": {"standin": "emulator", "ran": True},
                "kernels": {
                    "checked": {
                        "take": {"calls": 2, "max_error": 0.0},
                        "norm": {"calls": 4, "max_error": 5.7e-4},
                    },
                    "unchecked": {"softmax": 1},
                    "not_called": ["a", "b"],
                },
            },
            [
                (
                    "  kernels   2 checked alone on the stand-in emulator, max error 5.7e-04 (norm);"
                    " 1 without reference; 2 not called"
                )
            ],
        ),
        (
            {
                "verification": {"standin": "qemu", "ran": True},
                "kernels": {"checked": {}, "unchecked": {}, "not_called": []},
            },
            ["  kernels   0 checked alone on the stand-in qemu"],
        ),
    ],
)
def test_reports_may_lack_sections(
    pipeline: Callable[..., Calls], report: dict[str, Any], lines: list[str]
) -> None:
    pipeline(report=report)
    assert call("build", "tinypy", "-t", "x86-64-v3").err.splitlines()[6:] == lines


def test_nothing_to_do_is_one_line(pipeline: Callable[..., Calls]) -> None:
    pipeline(hit=True)
    assert call("build", "tinypy", "-t", "x86-64-v3").code == 0
    called = call("build", "tinypy", "-t", "x86-64-v3")
    assert called.out == "artifacts/tinypy/x86-64-v3\n"
    assert called.err.splitlines()[-1] == "tinypy for x86-64-v3 is up to date (2.8 s)"
    assert "cached" not in called.err


def test_quiet_prints_the_artifact_alone(pipeline: Callable[..., Calls]) -> None:
    pipeline()
    called = call("-q", "build", "tinypy", "-t", "x86-64-v3")
    assert (called.out, called.err) == ("artifacts/tinypy/x86-64-v3\n", "")


def test_every_target_once(pipeline: Callable[..., Calls]) -> None:
    calls = pipeline()
    words = ("-t", "x86-64-v3", "-t", "x86-64-v4", "-t", "x86-64-v3", "--out", "there")
    called = call("build", "tinypy", *words)
    assert called.out.split() == ["there/tinypy/x86-64-v3", "there/tinypy/x86-64-v4"]
    assert [item["plan"].target.name for item in calls] == ["x86-64-v3", "x86-64-v4"]


def test_the_root_of_artifacts_may_come_from_the_environment(
    pipeline: Callable[..., Calls], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline()
    monkeypatch.setenv("EDGEC_ARTIFACTS", "elsewhere")
    assert call("build", "tinypy", "-t", "x86-64-v3").out == "elsewhere/tinypy/x86-64-v3\n"


def test_options_reach_the_pipeline(pipeline: Callable[..., Calls], tmp_path: Path) -> None:
    calls = pipeline()
    words = ("--force", "-j", "3", "--no-verify", "-s", "context.length=512", "--dump-ir", "ir")
    assert call("build", "tinypy", "-t", "x86-64-v3", *words).code == 0
    done = calls[0]
    assert (done["force"], done["jobs"], done["force_stages"]) == (True, 3, ("compile",))
    stages = {spec.name: spec for spec in done["plan"].stages}
    assert "verify" not in stages
    assert stages["compile"].inputs["context.length"] == 512
    assert stages["compile"].local["dump_ir"] == str(tmp_path / "ir" / "x86-64-v3")
    assert done["plan"].loaded.overrides == ("context.length=512",)

    call("build", "tinypy", "-t", "x86-64-v3")
    assert (calls[1]["force"], calls[1]["force_stages"]) == (False, ())


def test_json_is_a_stream_that_ends_with_the_result(pipeline: Callable[..., Calls]) -> None:
    pipeline()
    called = call("build", "tinypy", "-t", "x86-64-v3", "--json")
    assert called.err == ""
    names = [event["event"] for event in called.events]
    assert names[-4:] == ["stage-hit", "stage-started", "stage-finished", "result"]
    result = called.events[-1]
    assert result["schema"] == "edgec.build/v1"
    assert result["artifact"] == "artifacts/tinypy/x86-64-v3"
    assert result["stages"] == {"compile": {"digest": "bb", "hit": False, "seconds": 2.5}}
    assert result["report"] == REPORT
    assert result["up_to_date"] is False


def test_a_failure_ends_the_stream_with_an_error(
    pipeline: Callable[..., Calls], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_args: object, events: Any, **_options: object) -> None:
        events(StageHit("checkpoint", "aa"))
        raise VerificationError("the quality gate is broken", where="r.yaml: quality")

    monkeypatch.setattr(module, "build", build)
    called = call("build", "tinypy", "-t", "x86-64-v3", "--json")
    assert called.code == 5
    assert called.events[-1]["schema"] == "edgec.error/v1"
    assert called.err == "error: r.yaml: quality: the quality gate is broken\n"


def test_nothing_is_built_if_one_target_is_wrong(pipeline: Callable[..., Calls]) -> None:
    calls = pipeline()
    called = call("build", "tinypy", "-t", "x86-64-v3", "-t", "x86-64-v9")
    assert called.code == 2
    assert "there is no target of this name" in called.err
    assert calls == []
