import hashlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from edgec.errors import BuildError
from edgec.pipeline import filedigests
from edgec.pipeline.filedigests import FileDigests
from edgec.pipeline.store import Store


class Counter:
    def __init__(self) -> None:
        self.total = self.done = 0

    def start(self, total: int, unit: str) -> None:
        self.total = total

    def advance(self, amount: int) -> None:
        self.done += amount

    def note(self, text: str) -> None:
        raise AssertionError(text)


def set_steps(monkeypatch: pytest.MonkeyPatch, step_ns: int) -> None:
    for name in ("_COARSE_NS", "_FINE_NS"):
        monkeypatch.setattr(filedigests, name, step_ns)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    set_steps(monkeypatch, -1)
    files = [tmp_path / name for name in ("one", "two")]
    for file in files:
        file.write_bytes(file.name.encode() * 1_000_000)
    return files


def bytes_read(store: Store, files: list[Path]) -> int:
    counter = Counter()
    found = FileDigests(store).digests(files, counter)
    assert found == {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    assert counter.done == counter.total
    return counter.done


def test_files_are_read_once(store: Store, files: list[Path]) -> None:
    assert bytes_read(store, files) == 6_000_000
    assert bytes_read(store, files) == 0
    assert FileDigests(store).sha256(files[0]) == hashlib.sha256(b"one" * 1_000_000).hexdigest()


def test_a_changed_file_is_read_again(store: Store, files: list[Path]) -> None:
    bytes_read(store, files)
    files[1].write_bytes(b"TWO" * 1_000_000)
    assert bytes_read(store, files) == 3_000_000


def test_a_change_with_the_old_time_stamp_is_noticed(store: Store, files: list[Path]) -> None:
    bytes_read(store, files)
    status = files[0].stat()
    files[0].write_bytes(b"ONE" * 1_000_000)
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert bytes_read(store, files) == 3_000_000


def test_a_file_that_has_just_changed_is_not_remembered(
    store: Store, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    set_steps(monkeypatch, 2_000_000_000)
    assert bytes_read(store, files) == 6_000_000
    assert bytes_read(store, files) == 6_000_000


@pytest.mark.parametrize(
    ("changed_ns", "settled_ns"),
    # Whole seconds, hundredths as exFAT has them, and a kernel's clock.
    [(1_000_000_000, 2_000_000_000), (1_230_000_000, 2_000_000_000), (1_234_567_890, 100_000_000)],
)
def test_fine_time_stamps_settle_sooner(changed_ns: int, settled_ns: int) -> None:
    status = cast("os.stat_result", SimpleNamespace(st_mtime_ns=5, st_ctime_ns=changed_ns))
    assert not filedigests._is_settled(status, changed_ns + settled_ns)
    assert filedigests._is_settled(status, changed_ns + settled_ns + 1)


def test_a_time_stamp_that_was_set_says_nothing_of_the_clock() -> None:
    status = cast("os.stat_result", SimpleNamespace(st_mtime_ns=1, st_ctime_ns=3_000_000_000))
    assert not filedigests._is_settled(status, 4_000_000_000)


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "other", "files": {}}', '{"files": 3}'])
def test_a_damaged_memory_costs_time_only(store: Store, files: list[Path], text: str) -> None:
    bytes_read(store, files)
    (store.root / "filedigests.json").write_text(text)
    assert bytes_read(store, files) == 6_000_000
    assert bytes_read(store, files) == 0


def test_the_memory_is_bounded(
    store: Store, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filedigests, "_REMEMBERED", 1)
    bytes_read(store, files)
    assert bytes_read(store, files) == 3_000_000


def test_a_file_that_changes_while_it_is_read(store: Store, files: list[Path]) -> None:
    class Writer(Counter):
        def advance(self, amount: int) -> None:
            os.utime(files[0], (1, 1))

    with pytest.raises(BuildError, match="one: the file changed while it was read; wait until"):
        FileDigests(store).digests([files[0]], Writer())


def test_a_missing_file(store: Store, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="absent: the file can't be read: No such file"):
        FileDigests(store).sha256(tmp_path / "absent")
