"""The child process that runs stages: jobs come as JSON lines, events go out on a pipe.

Standard output and error of a stage, also of C libraries and compilers, go to its log file; they
can't disturb the events. The worker dies with the process that started it. It imports nothing
heavy itself: a stage's module is imported when its first job comes, and stays loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import importlib
import io
import json
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, NoReturn

from edgec.errors import EdgecError
from edgec.pipeline.channel import Channel, ChannelProgress
from edgec.pipeline.failures import is_disk_full, storage_error
from edgec.stages.context import StageContext

_PR_SET_PDEATHSIG = 1


def main(descriptor: int, parent: int) -> NoReturn:
    """Serve jobs until the parent goes away or kills this process.

    Args:
        descriptor: the pipe to write events to.
        parent: process id of the parent.
    """
    _die_with(parent)
    # Processes that a stage starts must not hold the pipe open, nor read the jobs.
    os.set_inheritable(descriptor, False)
    jobs = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    faulthandler.enable()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    channel = Channel(descriptor)
    inbox: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(jobs, inbox), daemon=True).start()
    while True:
        channel.send(_serve(inbox.get(), channel))


def _die_with(parent: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _receive(descriptor: int, inbox: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Pass on jobs; at the end of the input kill the whole process group, mid-stage or not."""
    with os.fdopen(descriptor, encoding="utf-8") as lines:
        for line in lines:
            inbox.put(json.loads(line))
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


def _serve(job: dict[str, Any], channel: Channel) -> dict[str, Any]:
    _log_to(job["log"])
    progress = ChannelProgress(channel)
    result = _run(job, progress)
    progress.flush()
    return result


def _run(job: dict[str, Any], progress: ChannelProgress) -> dict[str, Any]:
    try:
        importlib.import_module(job["module"]).run(
            StageContext(
                out=Path(job["out"]),
                inputs=job["inputs"],
                local=job["local"],
                parents={name: Path(path) for name, path in job["parents"].items()},
                progress=progress,
            )
        )
    except EdgecError as error:
        _print_trace()
        return {"event": "error", "error": error.to_json()}
    except OSError as error:
        _print_trace()
        if is_disk_full(error):
            full = storage_error(error, Path(job["cache"]))
            return {"event": "error", "error": full.to_json()}
        return _unexpected(error)
    except BaseException as error:  # noqa: BLE001 - whatever it is, the parent has to hear of it
        _print_trace()
        return _unexpected(error)
    return {"event": "done"}


def _unexpected(error: BaseException) -> dict[str, Any]:
    lines = str(error).strip().splitlines()
    return {"event": "exception", "text": ": ".join([type(error).__name__, *lines[:1]])}


def _print_trace() -> None:
    with contextlib.suppress(OSError):  # the disk of the log may be full
        traceback.print_exc()


def _log_to(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
