"""A browser without a window, driven through a process of Node.js."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edgec.errors import ToolchainError, VerificationError
from edgec.standins.npm import node

if TYPE_CHECKING:
    from collections.abc import Sequence

_DRIVER = Path(__file__).parent / "driver.mjs"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# WebGPU on SwiftShader, which executes kernels on the CPU: the same on every machine.
_ON_CPU = (
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    # It ends what compiles for ten seconds, as pipelines do on a CPU.
    "--disable-gpu-watchdog",
)
_MESSAGE_LINES = 4
_LAUNCH_SECONDS = 120


@dataclass(frozen=True)
class Reply:
    """What the driver answers.

    Attributes:
        value: plain data.
        messages: that the page wrote to its console since the last reply.
    """

    value: Any
    messages: Sequence[str]


def find_browser() -> str:
    """The path of Chromium or Chrome: ``CHROMIUM`` if set, else the one on the path.

    Raises:
        ToolchainError: there is none.
    """
    named = os.environ.get("CHROMIUM")
    candidates = [named] if named else _NAMES
    found = next((path for path in map(shutil.which, candidates) if path), None)
    if found:
        return found
    what = f"CHROMIUM names {named!r}, which is no program" if named else "there is no Chromium"
    raise ToolchainError(
        f"{what}, in which WebLLM runs",
        where="chromium",
        remedy="install it (Debian: apt-get install chromium), or name it in CHROMIUM",
    )


class Browser:
    """A browser with one page. Not thread-safe.

    Args:
        packages: ``node_modules`` with ``playwright-core``.
        arguments: for the browser; by default those for WebGPU on the CPU.

    Attributes:
        version: of the browser.

    Raises:
        ToolchainError: the browser or Node.js is missing, or the browser doesn't start.
    """

    def __init__(self, packages: Path, arguments: Sequence[str] = _ON_CPU) -> None:
        program = find_browser()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _end
        self._process = subprocess.Popen(
            [node(), str(_DRIVER), str(packages), program, json.dumps(list(arguments))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={"XDG_RUNTIME_DIR": tempfile.gettempdir(), **os.environ},
        )
        self._finish = weakref.finalize(self, _end, self._process, self._errors)
        try:
            reply = self.request("launch", timeout_seconds=_LAUNCH_SECONDS)
        except VerificationError as error:
            self.close()
            raise ToolchainError(
                f"the browser doesn't start ({error.what.splitlines()[0]})",
                where=program,
                remedy="start it by hand to see why, or name another one in CHROMIUM",
            ) from error
        self.version: str = reply.value["version"]

    def close(self) -> None:
        """End the browser."""
        self._finish()

    def request(self, operation: str, *, timeout_seconds: float, **rest: Any) -> Reply:
        """Have ``driver.mjs`` do something.

        Raises:
            VerificationError: it failed, took too long, or the driver ended; the page's errors are
                part of the message.
        """
        message = {"operation": operation, "timeout_seconds": timeout_seconds, **rest}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):  # if it ended, that shows when the answer is read
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            raise VerificationError(
                f"the browser's driver ended ({'; '.join(lines[-_MESSAGE_LINES:])})",
                where="chromium",
            )
        fields = json.loads(line)
        if not fields["ok"]:
            raise VerificationError(
                with_errors(fields["message"], fields["messages"]), where="chromium"
            )
        return Reply(fields["value"], fields["messages"])


def with_errors(what: str, messages: Sequence[str]) -> str:
    """A failure with the last errors of the page's console, each of them once."""
    errors = [text for text in messages if text.startswith("error: ")][-_MESSAGE_LINES:]
    return "; ".join(dict.fromkeys([what, *errors]))


def _end(process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    # The driver closes the browser and removes its profile when its input ends.
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=15)
    if process.poll() is None:
        process.terminate()  # Playwright ends the browser with it
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
    if process.poll() is None:
        process.kill()
        process.wait()
    errors.close()
