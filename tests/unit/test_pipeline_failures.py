import errno
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_build import build, chain, toy

from edgec.errors import BuildError, CacheError, CheckpointError
from edgec.pipeline.failures import describe_exit, log_remedy, storage_error
from edgec.pipeline.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "cache")
    yield store
    assert os.listdir(store.tmp) == []
    assert os.listdir(store.locks) == []


def test_a_crash_names_the_stage_the_signal_and_the_end_of_its_log(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with pytest.raises(BuildError) as caught:
        build([toy("emit", "segfault")], store)

    lines = str(caught.value).splitlines()
    log = next(store.logs.iterdir())
    assert (
        lines[0]
        == f"stage emit: its process was killed by SIGSEGV; read its log {log}, which ends:"
    )
    assert lines[1:-1] == [f"  line {line} before the crash" for line in range(16, 30)]
    assert lines[-1] == "  C before the crash"
    assert "line 0 before" in log.read_text()


def test_an_exit_is_a_crash_too(store: Store) -> None:
    with pytest.raises(
        BuildError,
        match=r"stage a: its process ended with exit code 7; see whether it repeats; its log",
    ):
        build([toy("a", "exit")], store)


def test_a_time_limit_kills_the_stage_and_its_children(store: Store, tmp_path: Path) -> None:
    spec = toy("tune", "sleep", local={"pid": tmp_path / "pid"}, timeout_s=0.7)
    started = time.monotonic()
    with pytest.raises(BuildError, match=r"stage tune: it took longer than .* limit of 0\.7 s"):
        build([spec], store)

    assert time.monotonic() - started < 3
    for pid in (tmp_path / "pid").read_text().split():
        state = Path(f"/proc/{pid}/stat")
        time.sleep(0.05)
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_an_error_for_the_user_comes_through_as_it_is(store: Store) -> None:
    with pytest.raises(CheckpointError) as caught:
        build([toy("a", "user_error")], store)
    assert str(caught.value) == "model.safetensors: bad weights; get good ones"


@pytest.mark.parametrize(
    ("do", "text"), [("bug", "ValueError: two"), ("system_exit", "SystemExit: 3")]
)
def test_an_unexpected_exception_is_an_error_with_its_trace_in_the_log(
    store: Store, do: str, text: str
) -> None:
    with pytest.raises(BuildError) as caught:
        build([toy("a", do)], store)
    assert str(caught.value).startswith(f"stage a: it failed with {text}; read its log ")
    assert f"in do_{do}" in str(caught.value)


def test_a_full_disk_is_a_cache_error(store: Store) -> None:
    with pytest.raises(CacheError, match="no space left on the disk of the cache; free some"):
        build([toy("a", "disk_full")], store)


def test_a_missing_module_is_named_before_anything_runs(store: Store) -> None:
    store.prepare()
    spec = replace(toy("a"), module="no_such_stage")
    with pytest.raises(ModuleNotFoundError, match="no_such_stage"):
        build([spec], store)


def test_the_first_failure_kills_the_others(store: Store) -> None:
    started = time.monotonic()
    with pytest.raises(CheckpointError):
        build([toy("long", "sleep"), toy("bad", "user_error")], store)
    assert time.monotonic() - started < 5


def test_after_a_failure_the_build_goes_on_from_where_it_was(store: Store, tmp_path: Path) -> None:
    ran = {"ran": tmp_path / "ran"}
    with pytest.raises(BuildError):
        build([toy("a", local=ran), toy("b", "bug", parents=("a",), local=ran)], store)
    results, _ = build([toy("a", local=ran), toy("b", parents=("a",), local=ran)], store)

    assert results["a"].hit
    assert (tmp_path / "ran").read_text().split() == ["a", "b", "b"]


@pytest.fixture
def forbidden() -> Iterator[Path]:
    """A folder that may not be written to; root may do everything, so be somebody else."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(user)
        folder.rmdir()


def test_a_cache_that_cannot_be_made_or_written(forbidden: Path) -> None:
    with pytest.raises(CacheError) as caught:
        build([toy("a")], Store(forbidden / "cache"))
    assert str(caught.value).startswith(
        f"{forbidden}/cache: the cache can't be written: Permission"
    )

    with pytest.raises(CacheError, match="can't be written: Permission denied; set EDGEC_CACHE"):
        build([toy("a")], Store(forbidden))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (errno.ENOSPC, "there is no space left"),
        (errno.EDQUOT, "there is no space left"),
        (errno.EROFS, "can't be written: Read-only file system; set EDGEC_CACHE"),
        (errno.EACCES, "can't be written: Permission denied; set EDGEC_CACHE"),
        (errno.ENOLCK, "has no file locks"),
        (errno.EIO, "can't be used"),
    ],
)
def test_disk_errors_say_what_to_do(code: int, text: str) -> None:
    error = storage_error(OSError(code, os.strerror(code)), Path("/cache"))
    assert str(error).startswith("/cache: ")
    assert text in str(error)


def test_descriptions_of_exits() -> None:
    assert describe_exit(-9) == "was killed by SIGKILL (was the machine out of memory?)"
    assert describe_exit(-6) == "was killed by SIGABRT"
    assert describe_exit(-99) == "was killed by signal 99"


def test_a_log_that_is_gone_or_huge(tmp_path: Path) -> None:
    assert log_remedy(None) == "build again to see whether it repeats"
    log = tmp_path / "log.txt"
    log.write_bytes(b"x" * 1_000_000 + b"\nend\xff\n\n")
    *_, long, end = log_remedy(log).splitlines()
    assert len(long) < 400
    assert end == "  end\N{REPLACEMENT CHARACTER}"


def test_a_build_of_the_chain_survives_a_store_that_is_only_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "cache")
    build(chain(), store)
    real_open = os.open

    def read_only(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real_open(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", read_only)
    results, _ = build(chain(), store)
    assert all(result.hit for result in results.values())
    with pytest.raises(CacheError, match="can't be written: Read-only file system"):
        build([*chain(), toy("new")], store)
