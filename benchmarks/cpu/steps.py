"""Steps that leave a folder or a file behind, which is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

LOW_PRIORITY = ("nice", "-n", "10")
SPARE = 1.5e9
_PAUSE = 0.2
"""Seconds between two looks at what a program takes."""
_LAST = 12
"""Lines of a log that are read for the reason of a failure."""


class StepError(Exception):
    """A step failed; says why."""


def make(path: Path, text: str, work: Callable[[Path], None], *, movable: bool = True) -> Path:
    """Do a step unless it is done.

    Args:
        path: what it leaves behind.
        text: what it does, for people.
        work: does it, at the place that it is given, which isn't there yet.
        movable: whether what is made may be renamed; else it is made in its place, and a file
            beside it says that it is whole.

    Returns:
        ``path``.

    Raises:
        StepError: it failed; nothing is left behind.
    """
    whole = path if movable else path.with_name(f"{path.name}.done")
    if whole.exists():
        return path
    print(f"{text} ...", file=sys.stderr, flush=True)
    started = time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    place = path.with_name(f".{path.name}.new") if movable else path
    remove(place)
    try:
        work(place)
    except OSError as error:
        raise StepError(f"{text}: {error}") from error
    if movable:
        os.replace(place, path)
    else:
        whole.touch()
    print(f"  {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return path


def run(
    command: Sequence[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    *,
    spare: float = SPARE,
) -> None:
    """Run a program, at low priority.

    One that takes the machine's last memory or disk is ended, before it harms others.

    Args:
        command: the program and its arguments.
        log: gets all that it prints.
        environment: variables beside those of this process.
        spare: bytes of memory and of disk that it has to leave.

    Raises:
        StepError: it failed; names the log's last line that looks like a reason.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*LOW_PRIORITY, *command],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            missing = _watch(process, log.parent, spare)
        finally:
            # Its children too, whether they outlive it or this program is interrupted.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if missing:
        raise StepError(f"it leaves too little {missing}: {spare / 1e9:.0f} GB have to stay free")
    if process.returncode:
        raise StepError(f"{reason(log.read_text(errors='replace'), process.returncode)} ({log})")


def _watch(process: subprocess.Popen[bytes], folder: Path, spare: float) -> str:
    """Wait for a program; what it takes too much of, empty if it ends by itself."""
    while process.poll() is None:
        if free_memory() < spare:
            return "memory"
        if shutil.disk_usage(folder).free < spare:
            return "space on the disk"
        time.sleep(_PAUSE)
    return ""


def free_memory() -> int:
    """Bytes that programs can still take, the page cache's among them."""
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if "MemAvailable" in line)


def reason(text: str, code: int) -> str:
    """What a program's output says of its failure.

    Args:
        text: the output.
        code: its exit status.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()][-_LAST:]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or [f"exit status {code}"])[-1][:300]


def remove(path: Path) -> None:
    """Remove a file or a folder that an earlier run left unfinished."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
