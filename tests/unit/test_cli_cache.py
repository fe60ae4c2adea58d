import os
import shutil
import time
from pathlib import Path

import pytest
from cli_calls import call
from toy_build import build, toy

from edgec.pipeline.store import Store

NAMES = ("quantize", "compile", "pack")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("filled") / "cache"
    build([toy(name) for name in NAMES], Store(root), jobs=1)
    return root


@pytest.fixture
def store(filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Three results, last used one, two and three days ago."""
    root = tmp_path / "cache"
    shutil.copytree(filled, root)
    monkeypatch.setenv("EDGEC_CACHE", str(root))
    store = Store(root)
    for entry in store.entries():
        days = 1 + NAMES.index(entry.name)
        used = time.time() - days * 86400 - 60
        os.utime(entry.path / "stage.json", (used, used))
    return store


def names(store: Store) -> list[str]:
    return [entry.name for entry in store.entries()]


def test_list(store: Store) -> None:
    called = call("cache", "list")
    head, *rows = called.out.splitlines()
    assert head.split() == ["STAGE", "DIGEST", "SIZE", "TOOK", "MADE", "LAST", "USED"]
    assert [row.split()[0] for row in rows] == list(NAMES)
    assert rows[0].endswith("24 h ago")
    assert rows[2].endswith("3 days ago")
    assert called.err.startswith("3 results, ")
    assert called.err.endswith(f"in {store.root}\n")


def test_list_as_json(store: Store) -> None:
    data = call("cache", "list", "--json").data
    assert data["schema"] == "edgec.cache/v1"
    assert data["path"] == str(store.root)
    first = data["entries"][0]
    entry = store.entries()[0]
    assert first["stage"] == "quantize"
    assert first["digest"] == entry.digest
    assert first["bytes"] == entry.bytes > 100


def test_an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "none"))
    assert call("cache", "list").err.startswith("0 results, 0 B")
    assert not (tmp_path / "none").exists()
    assert call("cache", "gc").err.startswith("nothing to remove")


def test_gc_by_age(store: Store) -> None:
    called = call("cache", "gc", "--max-age", "2.5")
    assert names(store) == ["quantize", "compile"]
    assert called.out.splitlines()[1].startswith("pack ")
    assert called.err.startswith("removed 1 result, ")


def test_gc_by_size(store: Store) -> None:
    one = store.entries()[0].bytes
    call("cache", "gc", "--max-size", str((one + 20) / (1 << 30)))
    assert names(store) == ["quantize"]


def test_a_dry_run_removes_nothing(store: Store) -> None:
    called = call("cache", "gc", "--max-age", "0", "--dry-run")
    assert called.err.startswith("would remove 3 results, ")
    assert names(store) == list(NAMES)


def test_gc_without_limits_removes_only_what_is_damaged(store: Store) -> None:
    (store.entries()[1].out / "data.txt").unlink()
    called = call("cache", "gc", "--json")
    assert called.data == {"schema": "edgec.cache-gc/v1", "dry_run": False, "removed": []}
    assert names(store) == ["quantize", "pack"]


def test_clear(store: Store) -> None:
    assert call("cache", "clear").err.startswith("removed 3 results, ")
    assert names(store) == []


def test_gc_while_a_build_runs(store: Store) -> None:
    with store.in_use():
        called = call("cache", "gc", "--max-age", "0")
    assert called.code == 6
    assert "a build is using the cache" in called.err
    assert names(store) == list(NAMES)


def test_verify(store: Store) -> None:
    whole = call("cache", "verify")
    assert (whole.code, whole.out) == (0, "")
    entry = store.entries()[0]
    file = entry.out / "data.txt"
    file.write_text("x" * file.stat().st_size)
    called = call("cache", "verify")
    assert called.code == 6
    assert called.out == f"{entry.path}: data.txt was changed\n"
    assert called.err == "error: 1 result damaged; add --remove to remove them\n"

    as_json = call("cache", "verify", "--json")
    assert as_json.code == 6
    assert as_json.data["damaged"] == [
        {"path": str(entry.path), "problems": ["data.txt was changed"]}
    ]
    assert names(store) == list(NAMES)


def test_damaged_results_can_be_removed(store: Store) -> None:
    first, second, _ = store.entries()
    (first.path / "stage.json").write_text("{")
    (second.out / "data.txt").unlink()
    called = call("cache", "verify", "--remove")
    assert called.code == 0
    assert "its record is missing or damaged" in called.out
    assert called.err.startswith("removed 2 results")
    assert names(store) == ["pack"]
    assert not first.path.exists()


def test_a_folder_that_is_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "precious.txt").write_text("x")
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path))
    called = call("cache", "gc", "--max-age", "0")
    assert called.code == 6
    assert "holds files that edgec did not put there" in called.err
    assert (tmp_path / "precious.txt").exists()
