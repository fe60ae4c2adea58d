import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_build import build, chain, toy

from edgec.cachefolder import cache_root
from edgec.errors import CacheError
from edgec.pipeline.maintenance import gc, sweep
from edgec.pipeline.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def test_the_place_and_the_record_of_a_result(store: Store) -> None:
    results, _ = build([toy("a", value=3)], store)

    digest = results["a"].digest
    place = store.root / "stages" / "a" / digest[:32]
    assert results["a"].path == place / "out"
    assert sorted(os.listdir(place)) == ["log.txt", "out", "stage.json"]
    record = json.loads((place / "stage.json").read_text())
    assert record["schema"] == "edgec.stage/v1"
    assert record["digest"] == digest
    assert record["inputs"] == {"name": "a", "do": "write", "value": 3}
    assert list(record["code"]) == ["toy_stages.py"]
    assert record["bytes"] == 103
    assert record["files"]["data.txt"][0] == 3
    assert (store.root / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172")
    assert json.loads((store.root / "edgec-store.json").read_text()) == {"schema": "edgec.store/v1"}


def test_the_root_is_named_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "x"))
    assert cache_root() == tmp_path / "x"
    monkeypatch.setenv("EDGEC_CACHE", "below")
    assert cache_root() == Path.cwd() / "below"


def test_a_file_in_the_place_of_the_cache(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for root in (file, file / "below"):
        with pytest.raises(CacheError, match=r"this is a file or lies below one; set EDGEC_CACHE"):
            Store(root)
    assert file.read_text() == "mine"


def test_a_folder_with_foreign_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(CacheError, match=r"files that edgec did not put there \('thesis\.tex'\)"):
        Store(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_files_that_come_before_the_first_build_are_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    store.root.mkdir()
    (store.root / "thesis.tex").write_text("mine")
    with pytest.raises(CacheError, match="thesis"):
        store.prepare()
    assert os.listdir(store.root) == ["thesis.tex"]


def test_a_folder_that_was_half_marked_by_a_killed_build_is_ours(tmp_path: Path) -> None:
    (tmp_path / ".edgec-store.json.abcd").write_text("{")
    Store(tmp_path).prepare()
    Store(tmp_path)


@pytest.mark.parametrize(
    ("marker", "text"),
    [('{"schema": "edgec.store/v9"}', "another version of edgec"), ("[", "is damaged")],
)
def test_a_store_of_another_version_is_not_touched(tmp_path: Path, marker: str, text: str) -> None:
    (tmp_path / "edgec-store.json").write_text(marker)
    with pytest.raises(CacheError, match=text):
        Store(tmp_path)


@pytest.mark.parametrize("record", ["", "{}", "[]", '{"files": 3}'])
def test_a_damaged_record_is_no_result(store: Store, record: str) -> None:
    results, _ = build([toy("a")], store)
    (results["a"].path.parent / "stage.json").write_text(record)

    assert store.lookup("a", results["a"].digest) is None
    assert store.entries() == []
    again, _ = build([toy("a")], store)
    assert not again["a"].hit
    assert len(store.entries()) == 1


def test_verification_names_every_difference(store: Store) -> None:
    results, _ = build([toy("a")], store)
    entry = store.lookup("a", results["a"].digest)
    assert entry is not None
    assert entry.problems() == []

    (entry.out / "data.txt").write_text("A+ ")
    (entry.out / "folder" / "more.bin").unlink()
    (entry.out / "new").touch()
    assert entry.problems() == [
        "data.txt was changed",
        "folder/more.bin is missing",
        "new does not belong there",
    ]


def aged(store: Store, ages: dict[str, float]) -> None:
    for entry in store.entries():
        used = time.time() - ages[entry.name]
        os.utime(entry.path / "stage.json", (used, used))


def names(entries: list) -> list[str]:
    return [entry.name for entry in entries]


def test_gc_by_age_size_and_number(store: Store) -> None:
    build(chain(), store)
    aged(store, {"a": 400, "b": 300, "c": 200, "d": 100})
    total = sum(entry.bytes for entry in store.entries())

    assert gc(store) == []
    assert names(gc(store, older_than_s=250, dry_run=True)) == ["a", "b"]
    assert names(gc(store, max_bytes=total - 1, dry_run=True)) == ["a"]
    assert gc(store, older_than_s=0, keep_last=1) == []
    assert names(store.entries()) == ["d", "c", "b", "a"]

    assert names(gc(store, older_than_s=250)) == ["a", "b"]
    assert names(store.entries()) == ["d", "c"]
    assert names(gc(store, max_bytes=0)) == ["c", "d"]
    assert store.entries() == []
    assert os.listdir(store.tmp) == os.listdir(store.locks) == []


def test_gc_keeps_the_last_used_of_each_stage(store: Store) -> None:
    for value in range(3):
        build([toy("a", value=value)], store)
        aged_now = store.lookup("a", store.entries()[0].digest)
        assert aged_now is not None
        os.utime(aged_now.path / "stage.json", (1000 + value, 1000 + value))

    removed = gc(store, older_than_s=0, keep_last=1)
    assert [entry.identity.inputs["value"] for entry in removed] == [0, 1]


def test_a_hit_makes_an_entry_young(store: Store) -> None:
    build([toy("a"), toy("b")], store)
    aged(store, {"a": 400, "b": 300})
    build([toy("a")], store)
    assert names(gc(store, older_than_s=200)) == ["b"]


def test_gc_does_not_disturb_a_build(store: Store) -> None:
    build([toy("a")], store)
    with (
        store.in_use(),
        store.in_use(),
        pytest.raises(CacheError, match="a build is using the cache; clean it when no build is"),
    ):
        gc(store, max_bytes=0)
    assert len(store.entries()) == 1
    assert names(gc(store, max_bytes=0)) == ["a"]


def test_gc_removes_damaged_entries_and_old_logs(store: Store) -> None:
    results, _ = build([toy("a")], store)
    (results["a"].path / "data.txt").unlink()
    (store.logs / "a.log").write_text("old")
    os.utime(store.logs / "a.log", (1, 1))

    gc(store, older_than_s=1000)

    assert os.listdir(store.stages / "a") == []
    assert os.listdir(store.logs) == []


def test_a_sweep_removes_what_nobody_holds(store: Store) -> None:
    store.prepare()
    (store.locks / "dead-1.lock").touch()
    (store.tmp / "dead-1.aaaa" / "out").mkdir(parents=True)
    (store.tmp / "gone-2.bbbb").mkdir()
    with store.lock("alive-3").held():
        kept = store.temporary("alive-3")
        sweep(store)
        assert list(store.tmp.iterdir()) == [kept]
        assert os.listdir(store.locks) == ["alive-3.lock"]


def start_build(store: Store, ran: Path, seconds: float) -> subprocess.Popen[bytes]:
    script = Path(__file__).with_name("toy_build.py")
    return subprocess.Popen(
        [sys.executable, script, store.root, ran, str(seconds)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_two_builds_at_once_share_the_work(store: Store, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    processes = [start_build(store, ran, 0.3) for _ in range(3)]
    outputs = [process.communicate()[0].decode() for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(ran.read_text().split()) == ["a", "b", "c", "d"]
    for stage in "abcd":
        assert sum(f"{stage}:False" in output for output in outputs) == 1
    assert os.listdir(store.tmp) == os.listdir(store.locks) == []


def test_a_build_killed_at_any_moment_leaves_a_store_that_works(
    store: Store, tmp_path: Path
) -> None:
    """Only the builder is killed: its workers have to notice by themselves."""
    ran = tmp_path / "ran"
    for moment in (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.42, 0.5, 0.6, 0.75):
        process = start_build(store, ran, 0.25)
        time.sleep(moment)
        process.kill()
        process.communicate()
        for entry in store.entries():
            assert entry.problems() == []
            assert (entry.out / "data.txt").stat().st_size > 0

    process = start_build(store, ran, 0.25)
    process.communicate()

    assert process.returncode == 0
    assert len(store.entries()) == 4
    assert os.listdir(store.tmp) == os.listdir(store.locks) == []
    assert workers_of(store) == []


def workers_of(store: Store) -> list[str]:
    """Living processes whose standard error is a log in the store."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            log = os.readlink(process / "fd" / "2")
        except OSError:
            continue
        if log.startswith(str(store.root)):
            found.append(process.name)
    return found
