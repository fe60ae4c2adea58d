"""Steps that leave a folder or a file behind, which is there whole or not at all."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

LOW_PRIORITY = ("nice", "-n", "10")
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


def run(command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a program, at low priority.

    Args:
        command: the program and its arguments.
        log: gets all that it prints.
        environment: variables beside those of this process.

    Raises:
        StepError: it failed; names the log's last line that looks like a reason.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        done = subprocess.run(
            [*LOW_PRIORITY, *command],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            check=False,
        )
    if done.returncode:
        raise StepError(f"{reason(log.read_text(errors='replace'), done.returncode)} ({log})")


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
