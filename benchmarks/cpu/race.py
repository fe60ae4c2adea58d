"""Engines in processes of their own, of which one runs at a time.

A process that has no turn is stopped by a signal: its threads can't spin beside the one that is
measured. The turns go round, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from sides.serve import MARK

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from figures import Result, Test

_TIMEOUT = 900.0
"""Seconds for one request: an engine that takes longer has failed."""
_COURTESY = 1.0
_FIRST_ID = 3


class EngineError(Exception):
    """An engine can't be measured; says why."""


class Process:
    """An engine's process, which is stopped between its turns.

    Args:
        command: what runs.
        environment: variables beside those of this process.
        log: gets what it writes to its standard error.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self.spawned = time.monotonic()
        with log.open("w") as stream:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                env={**os.environ, **environment},
            )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, operation: str, **request: Any) -> dict[str, Any]:
        """Let it run until it has answered a request.

        Raises:
            EngineError: it reports an error, ends, or takes too long.
        """
        assert self._process.stdin is not None
        try:
            os.kill(self._process.pid, signal.SIGCONT)
            self._process.stdin.write(json.dumps({"operation": operation, **request}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise EngineError(self._last_words()) from error
        answer = self._answer()
        os.kill(self._process.pid, signal.SIGSTOP)
        if "error" in answer:
            raise EngineError(f"{operation}: {answer['error']}")
        return answer

    def peak(self) -> int:
        """The most bytes of resident memory so far."""
        with open(f"/proc/{self._process.pid}/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return 0

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _answer(self) -> dict[str, Any]:
        ends = time.monotonic() + _TIMEOUT
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, ends - time.monotonic()))
            except queue.Empty:
                raise EngineError(f"no answer in {_TIMEOUT:.0f} s") from None
            if line is None:
                raise EngineError(self._last_words())
            if line.startswith(MARK):
                answer: dict[str, Any] = json.loads(line[len(MARK) :])
                return answer

    def _last_words(self) -> str:
        code = self._process.wait()
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"ended with {code}: {lines[-1] if lines else 'no message'}"


class Racer:
    """An engine's process with what was measured of it.

    Args:
        result: its row, filled in here.
        process: of the engine.
    """

    def __init__(self, result: Result, process: Process) -> None:
        self.result = result
        self.process = process

    def open(self, **request: Any) -> None:
        """Load the model."""
        answer = self._ask("open", spawned=self.process.spawned, **request)
        if answer is not None:
            self.result.load, self.result.start = answer["load"], answer["start"]
            self.result.version, self.result.settings = answer["version"], answer["settings"]
            self.result.token_bytes = answer["bytes"]
            self.result.position_bytes = answer["position_bytes"]

    def measure(self, test: Test, tokens: list[int]) -> None:
        """One turn."""
        if test.generated:
            answer = self._ask("decode", tokens=tokens, count=test.generated)
        else:
            answer = self._ask("prefill", tokens=tokens)
        if answer is not None:
            self.result.seconds.setdefault(test.name, []).append(answer["result"])
            self.result.machine.append(os.getloadavg()[0])

    def prepare(self, tokens: list[int]) -> None:
        """Bring the prompt of a test that decodes into the cache; no turn that counts."""
        self._ask("decode", tokens=tokens, count=1)

    def compare(self, tokens: list[int]) -> None:
        """Keep the logits after a prompt."""
        answer = self._ask("logits", tokens=tokens)
        if answer is not None:
            self.result.logits = answer["result"]

    def close(self) -> None:
        """End the process."""
        self.process.close()

    def _ask(self, operation: str, **request: Any) -> dict[str, Any] | None:
        """An answer; None of an engine that has failed, now or before. The others go on."""
        if self.result.failure is not None:
            return None
        try:
            answer = self.process.ask(operation, **request)
        except EngineError as error:
            self.result.failure = str(error)
            print(f"  {self.result.name} failed: {error}", file=sys.stderr, flush=True)
            self.close()
            return None
        self.result.peak = self.process.peak()
        return answer


def prompt(length: int, vocabulary: int, seed: Sequence[int]) -> list[int]:
    """Token ids that no engine has seen: some keep the keys and values of old prompts.

    Args:
        length: how many.
        vocabulary: size of the model's.
        seed: other numbers give other ids.
    """
    generator = np.random.default_rng(list(seed))
    ids: list[int] = generator.integers(_FIRST_ID, vocabulary, length).tolist()
    return ids


@contextmanager
def held(lock: Path | None) -> Iterator[None]:
    """Hold a file's lock meanwhile, so that two measurements don't run beside each other."""
    if lock is None:
        yield
        return
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
    # Who waits for the lock has to wake before it is asked for again.
    time.sleep(_COURTESY)
