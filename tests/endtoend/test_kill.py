"""A build that is killed leaves nothing half-written; the next one succeeds, and one after it does nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgec.artifacts.artifact import open_artifact
from edgec.pipeline.store import Store

pytestmark = pytest.mark.slow

# Twenty take some minutes; `EDGEC_KILLS=20 pytest tests/endtoend/test_kill.py -s` shows them.
KILLS = int(os.environ.get("EDGEC_KILLS", "4"))
LONGEST_S = 6.0


def _command(out: Path) -> list[str]:
    return [sys.executable, "-m", "edgec", "build", "tinypy", "--no-verify", "--out", str(out)]


def _artifacts(out: Path) -> list[Path]:
    return [path.parent for path in out.rglob("manifest.json")]


def test_killed_builds(tmp_path: Path) -> None:
    cache, out = tmp_path / "cache", tmp_path / "out"
    environment = {**os.environ, "EDGEC_CACHE": str(cache)}
    chance = random.Random(2)
    killed = 0
    for _ in range(10 * KILLS):
        if killed == KILLS:
            break
        delay = chance.uniform(0.05, LONGEST_S)
        build = subprocess.Popen(
            _command(out),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            build.wait(delay)
        except subprocess.TimeoutExpired:
            build.send_signal(signal.SIGKILL)
            build.wait()
            killed += 1
            finished = ", ".join(sorted(path.name for path in (cache / "stages").glob("*")))
            print(f"killed after {delay:.2f} s; stages in the store: {finished or 'none'}")
        else:
            # It was faster than the axe: the next one starts from nothing.
            shutil.rmtree(cache)
            shutil.rmtree(out)
            continue
        for artifact in _artifacts(out):
            open_artifact(artifact).check_files()
        for entry in Store(cache).entries() if cache.exists() else ():
            assert not entry.problems(), entry
        if killed % 2 and killed < KILLS:
            # Every other build starts from nothing, so that early stages are hit as well.
            shutil.rmtree(cache, ignore_errors=True)
    assert killed == KILLS

    assert "stage-started" in _events(out, environment)

    (artifact,) = _artifacts(out)
    open_artifact(artifact).check_files()
    assert [path.name for path in artifact.parent.iterdir()] == [artifact.name]
    store = Store(cache)
    for entry in store.entries():
        assert not entry.problems(), entry
    left = [
        path.relative_to(cache).as_posix()
        for folder in ("tmp", "locks")
        for path in (cache / folder).rglob("*")
    ]
    assert not left
    assert not _workers(cache), "a worker outlived its build"

    again = _events(out, environment)
    assert again
    assert "stage-started" not in again


def _events(out: Path, environment: dict[str, str]) -> list[str]:
    """Build, and say what happened."""
    command = [*_command(out), "--json"]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return [json.loads(line)["event"] for line in done.stdout.splitlines()]


def _workers(cache: Path) -> list[str]:
    """Processes that still have the store's folder in their environment, after a moment's grace."""
    deadline = time.monotonic() + 5
    while True:
        found = [
            process.name
            for process in Path("/proc").glob("[0-9]*")
            if str(cache).encode() in _environment(process)
        ]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def _environment(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes()
    except OSError:  # it has ended
        return b""
