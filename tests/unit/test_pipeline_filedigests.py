import hashlib
import os
from pathlib import Path

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


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setattr(filedigests, "_GRANULARITY_NS", -1)
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
    monkeypatch.setattr(filedigests, "_GRANULARITY_NS", 2_000_000_000)
    assert bytes_read(store, files) == 6_000_000
    assert bytes_read(store, files) == 6_000_000


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
