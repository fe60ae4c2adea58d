import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from toy_build import build, chain, toy

from edgec.errors import BuildError, UsageError
from edgec.pipeline.events import StageAdvanced, StageFinished, StageHit, StageNote, StageProgress
from edgec.pipeline.executor import execute, status
from edgec.pipeline.stage import StageSpec, digests
from edgec.pipeline.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def leftovers(store: Store) -> list[str]:
    return [*os.listdir(store.tmp), *os.listdir(store.locks)]


def test_stages_run_in_order_once_and_are_hits_afterwards(store: Store, tmp_path: Path) -> None:
    specs = chain(ran=tmp_path / "ran")

    first, _ = build(specs, store)
    second, events = build(specs, store)

    ran = (tmp_path / "ran").read_text().split()
    assert sorted(ran) == ["a", "b", "c", "d"]
    assert (ran[0], ran[-1]) == ("a", "d")
    assert list(first) == ["a", "b", "c", "d"]
    assert not any(result.hit for result in first.values())
    assert (first["d"].path / "data.txt").read_text() == "d++b++a++c++a+"
    assert all(result.hit and result.seconds == 0 for result in second.values())
    assert [result.path for result in second.values()] == [r.path for r in first.values()]
    assert all(isinstance(event, StageHit) for event in events)
    assert leftovers(store) == []


def test_single_stages_can_be_made_to_run_again(store: Store, tmp_path: Path) -> None:
    specs = chain(ran=tmp_path / "ran")
    build(specs, store)
    (tmp_path / "ran").unlink()
    results, _ = build(specs, store, force_stages=("c",))
    assert (tmp_path / "ran").read_text().split() == ["c"]
    assert [name for name, result in results.items() if not result.hit] == ["c"]


def test_a_changed_input_runs_exactly_the_stages_that_depend_on_it(
    store: Store, tmp_path: Path
) -> None:
    def specs(value: int) -> list[StageSpec]:
        local = {"ran": tmp_path / "ran"}
        return [
            toy("quantize", local=local),
            toy("import", local=local),
            toy("pack", parents=("quantize",), local=local, value=value),
            toy("emit", parents=("import",), local=local),
            toy("bundle", parents=("pack", "emit"), local=local),
        ]

    build(specs(1), store)
    (tmp_path / "ran").unlink()
    results, _ = build(specs(2), store)

    assert (tmp_path / "ran").read_text().split() == ["pack", "bundle"]
    assert [name for name, result in results.items() if result.hit] == [
        "quantize",
        "import",
        "emit",
    ]
    assert [hit for _, _, hit in status(specs(1), store)] == [True] * 5
    assert [hit for _, _, hit in status(specs(3), store)] == [True, True, False, True, False]


def test_local_values_are_no_part_of_the_digest(tmp_path: Path) -> None:
    assert digests([toy("a", local={"threads": 1})]) == digests([toy("a", local={"threads": 2})])


def test_status_and_digests_write_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")

    assert [hit for _, _, hit in status(chain(), store)] == [False] * 4
    assert not store.root.exists()


def test_force_runs_stages_again_and_replaces_their_results(store: Store, tmp_path: Path) -> None:
    specs = chain(ran=tmp_path / "ran")
    first, _ = build(specs, store)
    (first["a"].path / "foreign").write_text("x")

    second, _ = build(specs, store, force=True)

    assert len((tmp_path / "ran").read_text().split()) == 8
    assert not any(result.hit for result in second.values())
    assert second["a"].path == first["a"].path
    assert not (first["a"].path / "foreign").exists()
    assert leftovers(store) == []


def test_until_leaves_out_what_the_stage_does_not_need(store: Store) -> None:
    results, _ = build(chain(), store, until="b")
    assert list(results) == ["a", "b"]

    with pytest.raises(UsageError, match=r"no stage 'z'; choose one of a, b, c, d"):
        build(chain(), store, until="z")


def test_independent_stages_run_at_the_same_time_in_two_processes(
    store: Store, tmp_path: Path
) -> None:
    """Each waits for the other."""
    specs = [toy(name, "meet", local={"path": tmp_path}) for name in ("x", "y")]
    build(specs, store, jobs=2)


def test_one_worker_serves_all_stages_of_a_line(store: Store) -> None:
    specs = [toy("a", "environment", local={"path": Path()})]
    specs += [toy("b", "environment", parents=("a",), local={"path": Path()})]

    results, _ = build(specs, store)

    scratch = [(result.path / "data.txt").read_text().split()[2] for result in results.values()]
    assert scratch[0] == scratch[1]


def test_the_environment_of_a_stage(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TVM_NUM_THREADS", raising=False)
    results, _ = build([toy("a", "environment", local={"path": store.root})], store)

    seed, threads, scratch, temporary, heavy, path_type = (
        (results["a"].path / "data.txt").read_text().split()
    )
    assert seed == "0"
    assert threads == str(len(os.sched_getaffinity(0)))
    assert temporary == scratch
    assert Path(scratch).parent == store.tmp
    assert heavy == "False"
    assert path_type == "str"


def test_a_module_in_the_current_folder_does_not_shadow_others(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    build([toy("a")], store)


def test_no_step_of_progress_is_lost_and_events_are_few(store: Store) -> None:
    _, events = build([toy("a", "progress")], store)

    steps = [event.amount for event in events if isinstance(event, StageAdvanced)]
    assert sum(steps) == 5007
    assert len(steps) < 100
    assert StageProgress("a", 5000, "bytes") in events
    assert StageNote("a", "halfway") in events
    assert isinstance(events[-1], StageFinished)


def test_what_a_stage_prints_goes_to_its_log_and_disturbs_nothing(store: Store) -> None:
    results, _ = build([toy("a", "noise"), toy("b", parents=("a",))], store)

    log = (results["a"].path.parent / "log.txt").read_bytes()
    for text in (b'{"event": "done"}', b"to stderr", b"from C", b"from a child", b"\xff\xfe raw"):
        assert text in log
    assert (results["b"].path.parent / "log.txt").read_bytes() == b""


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """What a shell starts in the background ignores interrupts, and its children do too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interruptible")
def test_an_interrupt_kills_the_stage_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    waiting = threading.get_ident()

    def interrupt_when_started() -> None:
        while not (pid.exists() and " " in pid.read_text()):
            time.sleep(0.02)
        signal.pthread_kill(waiting, signal.SIGINT)

    threading.Thread(target=interrupt_when_started).start()
    with pytest.raises(KeyboardInterrupt):
        build([toy("a", "sleep", local={"pid": pid})], store)

    assert leftovers(store) == []
    for process in pid.read_text().split():
        assert is_dead(int(process))


def is_dead(pid: int) -> bool:
    for _ in range(500):  # ten seconds: other tests keep the machine busy
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):  # gone, or gone while it was read
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_an_exception_in_the_listener_ends_the_build(store: Store) -> None:
    def listener(event: object) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        execute([toy("a")], store, events=listener)
    assert leftovers(store) == []


def test_a_damaged_result_is_made_again(store: Store) -> None:
    results, _ = build([toy("a")], store)
    (results["a"].path / "data.txt").write_text("")

    again, _ = build([toy("a")], store)

    assert not again["a"].hit
    assert (again["a"].path / "data.txt").read_text() == "a+"


def test_a_source_that_changes_while_it_runs_is_not_stored(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(Path(__file__).with_name("toy_stages.py"), tmp_path / "edited_stages.py")
    monkeypatch.syspath_prepend(tmp_path)
    spec = replace(toy("a", "slow", seconds=0.3), module="edited_stages")

    def edit(event: object) -> None:
        with (tmp_path / "edited_stages.py").open("a") as file:
            file.write("# edited\n")

    with pytest.raises(BuildError, match=r"source changed while it ran \(edited_stages.py\)"):
        execute([spec], store, events=edit)
    assert [hit for _, _, hit in status([spec], store)] == [False]
