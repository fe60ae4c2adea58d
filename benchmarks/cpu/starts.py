"""How long new processes take to their first token; the model's files are in the page cache."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from race import EngineError, Process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from figures import Result

_TIMEOUT = 300.0
# Ids of the vocabulary, as words of the made-up tokenizer.
_PROMPT = "w5 w6 w7"


def command_start(command: Sequence[str], log: Path) -> float:
    """Seconds from a program's start to the first byte that it prints.

    Args:
        command: the program and its arguments.
        log: gets what it writes to its standard error.

    Raises:
        EngineError: it fails, or prints nothing.
    """
    with log.open("w") as stream:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream)
        assert process.stdout is not None
        with process.stdout as output:
            first = os.read(output.fileno(), 1)
            seconds = time.monotonic() - started
            output.read()
    if process.wait(_TIMEOUT) or not first:
        words = log.read_text(errors="replace").strip().splitlines()
        raise EngineError(words[-1] if words else f"ended with {process.returncode}")
    return seconds


def run_command(artifact: Path, context: int) -> list[str]:
    """``edgec run`` for one token of an artifact."""
    words = [sys.executable, "-m", "edgec", "run", str(artifact), _PROMPT, "--max-tokens", "1"]
    return [*words, "--context", str(context)]


def side_start(
    command: Sequence[str], variables: Mapping[str, str], log: Path, request: Mapping[str, object]
) -> float:
    """Seconds from an engine's process's start to its first token.

    Raises:
        EngineError: it fails.
    """
    process = Process(command, variables, log)
    try:
        return float(process.ask("open", spawned=process.spawned, **request)["start"])
    finally:
        process.close()


def measure(result: Result, start: Callable[[], float]) -> None:
    """One turn of a row; one that has failed has no more."""
    if result.failure is not None:
        return
    try:
        result.starts.append(start())
    except EngineError as error:
        result.failure = str(error)
        print(f"  {result.name} failed: {error}", file=sys.stderr, flush=True)
        return
    result.machine.append(os.getloadavg()[0])
