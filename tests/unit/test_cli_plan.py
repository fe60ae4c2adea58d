from dataclasses import replace
from pathlib import Path

import pytest
from cli_calls import call

from edgec.artifacts.memory_plan import MemoryPlan
from edgec.cli.commands import plan as module
from edgec.pipeline.diagnose import Diagnosis, StageDiagnosis
from edgec.pipeline.preview import BudgetCheck, Preview, WeightGroup

MIB = 1 << 20
PARTS = "weights 3.0 MiB, KV cache 6.0 MiB"
FRESH = Preview(
    diagnosis=Diagnosis(
        changed=True,
        last=None,
        compared=None,
        stages=(
            StageDiagnosis("checkpoint", "aa", stored=True, reasons=()),
            StageDiagnosis("quantize", "bb", False, ("inputs.a: 1 -> 2", "stage x changed")),
            StageDiagnosis("compile", "cc", stored=False, reasons=("never built before",)),
        ),
    ),
    weights=(
        WeightGroup("4 bits in groups of 32", 25, 5_800_000, 3 * MIB),
        WeightGroup("float32", 13, 3300, 13 * 1024),
    ),
    memory=MemoryPlan(3 * MIB, 6 * MIB, 1024),
    library=None,
    artifact=4 * MIB,
    budgets=(BudgetCheck("memory_mb", 200 * MIB, 9 * MIB, complete=False),),
    activations="float32",
)
COMPILED = replace(
    FRESH,
    memory=MemoryPlan(3 * MIB, 6 * MIB, 1024, {"prefill": MIB}),
    library=MIB,
    budgets=(
        BudgetCheck("memory_mb", 200 * MIB, 10 * MIB, complete=True),
        BudgetCheck("artifact_mb", 2 * MIB, 4 * MIB, complete=True),
    ),
)


@pytest.fixture(autouse=True)
def _store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "preview", lambda _plan, _store: FRESH)


def test_stages_sizes_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    called = call("plan", "tinypy", "-t", "x86-64-v3")
    assert called.code == 0
    assert called.err == ""
    assert called.out.splitlines() == [
        "tinypy for x86-64-v3",
        "STAGE       ACTION  WHY",
        "checkpoint  cached",
        "quantize    run     inputs.a: 1 -> 2 (and 1 more)",
        "compile     run     never built before",
        "",
        "WEIGHTS                 TENSORS  NUMBERS      SIZE",
        "4 bits in groups of 32       25    5.8 M   3.0 MiB",
        "float32                      13    3.3 k  13.0 KiB",
        "",
        "weights   3.0 MiB, 4.34 bits each",
        f"memory    at least 9.0 MiB at 1024 tokens: {PARTS}; workspace known once compiled",
        "artifact  at least 4.0 MiB; library known once compiled",
        "budget    memory 9.0 MiB of 200 MiB (kept so far)",
    ]


def test_a_budget_that_would_be_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "preview", lambda _plan, _store: COMPILED)
    called = call("plan", "tinypy", "-t", "x86-64-v3")
    assert called.code == 5
    assert called.out.splitlines()[-3:] == [
        f"memory    10.0 MiB at 1024 tokens: {PARTS}, workspace 1.0 MiB",
        "artifact  about 4.0 MiB, of which library 1.0 MiB",
        "budget    memory 10.0 MiB of 200 MiB (kept), artifact 4.0 MiB of 2.0 MiB (over)",
    ]
    assert called.err == "error: over budget: artifact 4.0 MiB of 2.0 MiB for x86-64-v3\n"


def test_several_targets() -> None:
    lines = call("plan", "tinypy", "-t", "x86-64-v3", "-t", "x86-64-v4").out.splitlines()
    assert lines[0] == "tinypy for x86-64-v3"
    assert lines[lines.index("tinypy for x86-64-v4") - 1] == ""


def test_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "preview", lambda _plan, _store: COMPILED)
    called = call("plan", "tinypy", "-t", "x86-64-v3", "--json")
    assert called.code == 5
    assert called.data["schema"] == "edgec.plan/v1"
    (build,) = called.data["builds"]
    assert [stage["action"] for stage in build["stages"]] == ["cached", "run", "run"]
    assert build["memory"]["total_bytes"] == 10 * MIB
    assert [check["ok"] for check in build["budgets"]] == [True, False]
    assert build["library_bytes"] == MIB


def test_a_plan_writes_no_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call("plan", "tinypy", "-t", "x86-64-v3")
    assert not (tmp_path / "artifacts").exists()
    assert not (tmp_path / "cache" / "stages").exists() or not list(
        (tmp_path / "cache" / "stages").iterdir()
    )


def test_a_cache_of_another_type_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    item = replace(FRESH, memory=replace(FRESH.memory, kv_cache_dtype="int8"))
    monkeypatch.setattr(module, "preview", lambda _plan, _store: item)
    called = call("plan", "tinypy", "-t", "x86-64-v3")
    assert f"{PARTS} in int8; workspace" in called.out
    item = replace(FRESH, memory=replace(FRESH.memory, kv_cache_dtype="float32"))
    assert f"{PARTS}; workspace" in call("plan", "tinypy", "-t", "x86-64-v3").out
    called = call("plan", "tinypy", "-t", "x86-64-v3", "--json")
    assert called.data["builds"][0]["memory"]["kv_cache_dtype"] == "float32"


def test_other_devices_hold_keys_as_they_are_computed() -> None:
    called = call("plan", "tinypy", "-t", "webgpu", "-s", "context.kv_cache_dtype=int8")
    assert called.code == 2
    assert called.err.strip() == (
        "error: -s context.kv_cache_dtype=int8: context.kv_cache_dtype: the KV cache can be int8 on CPUs"
        " only, and on webgpu it is that of the activations, float32; leave it out, or write auto, or"
        " build for targets that are CPUs"
    )
    half = ("-s", "context.kv_cache_dtype=float16")
    assert call("plan", "tinypy", "-t", "webgpu", *half).code == 2
    # With activations of float16 it is what there would be anyway.
    scheme = ("-s", "quantization.scheme=q4f16_1")
    assert call("plan", "tinypy", "-t", "webgpu", *scheme, *half).code == 0
    assert call("plan", "tinypy", "-t", "linux-arm64", *scheme, *half).code == 0


@pytest.mark.parametrize(
    ("recipe", "change", "place", "what"),
    [
        ("tinypy", "image.size=448", "image.size", "takes no images"),
        ("qwen25-vl-3b", "image.size=450", "image.size", "no multiple of 28"),
        ("qwen25-vl-3b", "image.size=1036", "image.size", "1369 tokens, more than a prefill"),
        ("qwen25-vl-3b", "context.length=100000", "image.size", "more than 256 images"),
        ("qwen25-vl-3b", "context.sliding_window=512", "context.sliding_window", "forgets"),
    ],
)
def test_images_that_cannot_be_right_are_refused(
    recipe: str, change: str, place: str, what: str
) -> None:
    called = call("plan", recipe, "-w", "synthetic", "-t", "x86-64-v3", "-s", change)
    assert called.code == 2
    assert place in called.err
    assert what in called.err
