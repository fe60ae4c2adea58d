from collections.abc import Callable
from pathlib import Path

import pytest
from cli_calls import Called, call

from edgec.pipeline import diagnose
from edgec.pipeline.filedigests import FileDigests
from edgec.pipeline.history import History
from edgec.pipeline.plan import plan_build
from edgec.pipeline.stage import identify
from edgec.pipeline.store import Store
from edgec.recipe import find_recipe, load_recipe
from edgec.target import load_target

Record = Callable[..., None]


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """Put a build into the history, with no results in the store."""
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))
    store = Store(tmp_path / "cache")

    def record(*overrides: str) -> None:
        loaded = load_recipe(find_recipe("tinypy"), overrides)
        plan = plan_build(loaded, load_target("x86-64-v3"), FileDigests(store))
        History(store).record("tinypy", "x86-64-v3", identify(plan.stages))

    return record


def why(*words: str) -> Called:
    return call("why", "tinypy", "-t", "x86-64-v3", *words)


def test_never_built(record: Record) -> None:
    called = why()
    assert called.code == 0
    lines = called.out.splitlines()
    assert lines[0] == "tinypy for x86-64-v3: never built"
    assert lines[1:3] == ["checkpoint  will run", "  never built before"]


def test_what_changed_is_named_for_each_stage(record: Record) -> None:
    record()
    called = why("-s", "context.length=512")
    assert "compared with the last build, " in called.out
    lines = called.out.splitlines()
    assert lines[lines.index("compile     will run") + 1] == "  inputs.context.length: 1024 -> 512"
    assert called.err == ""


def test_if_nothing_changed_it_tells_what_did_last_time(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("context.length=512")
    record()
    monkeypatch.setattr(Store, "lookup", lambda *_words: object())
    lines = why().out.splitlines()
    assert lines[0].startswith("tinypy for x86-64-v3: nothing changed since the last build, ")
    compile_at = lines.index("compile     up to date")
    assert lines[compile_at + 1] == "  last time: inputs.context.length: 512 -> 1024"
    assert lines[1:3] == ["checkpoint  up to date", lines[2]]
    assert not lines[2].startswith("  ")


def test_results_that_are_there_from_before(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Store, "lookup", lambda *_words: object())
    assert why("quantize").out.splitlines()[1:] == ["quantize  in the cache"]
    record()
    changed = why("compile", "-s", "context.length=512").out.splitlines()
    assert changed[1:] == [
        "compile  changed, and its result is in the cache",
        "  inputs.context.length: 1024 -> 512",
    ]
    assert why("quantize", "-s", "context.length=512").out.splitlines()[1] == "quantize  unchanged"


def test_one_stage(record: Record) -> None:
    record()
    lines = why("compile", "-s", "context.length=512").out.splitlines()
    assert lines[1:] == ["compile  will run", "  inputs.context.length: 1024 -> 512"]


def test_many_reasons_are_cut_unless_the_stage_is_named(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnose, "explain", lambda *_a, **_k: [f"reason {i}" for i in range(9)])
    assert "  and 3 more, see edgec why ... quantize" in why().out
    assert "reason 8" not in why().out
    assert "reason 8" in why("quantize").out
    assert "reason 8" in call("-v", "why", "tinypy", "-t", "x86-64-v3").out


def test_an_unknown_stage(record: Record) -> None:
    called = why("compil")
    assert called.code == 2
    assert "did you mean compile?" in called.err


def test_json(record: Record) -> None:
    record()
    data = why("--json", "-s", "quality.tokens=100").data
    assert data["schema"] == "edgec.why/v1"
    (build,) = data["builds"]
    assert (build["recipe"], build["target"], build["changed"]) == ("tinypy", "x86-64-v3", True)
    stages = {stage["name"]: stage for stage in build["stages"]}
    assert stages["verify"]["reasons"] == ["inputs.quality.tokens: 2000 -> 100"]
    assert stages["verify"]["stored"] is False


def test_it_is_also_a_command_of_the_cache(record: Record) -> None:
    assert call("cache", "why", "tinypy", "-t", "x86-64-v3") == why()
