"""Stages for the tests of the pipeline: one module, told by its inputs what to do."""

import ctypes
import errno
import faulthandler
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgec.errors import CheckpointError
from edgec.stages.context import StageContext


def run(context: StageContext) -> None:
    if "ran" in context.local:
        with Path(context.local["ran"]).open("a") as file:
            file.write(f"{context.inputs['name']}\n")
    globals()[f"do_{context.inputs.get('do', 'write')}"](context)


def do_write(context: StageContext) -> None:
    parents = [(path / "data.txt").read_text() for path in context.parents.values()]
    text = "+".join([context.inputs["name"], str(context.inputs.get("value", "")), *parents])
    (context.out / "data.txt").write_text(text)
    (context.out / "folder").mkdir()
    (context.out / "folder" / "more.bin").write_bytes(bytes(100))


def do_slow(context: StageContext) -> None:
    Path(tempfile.mkdtemp(), "scratch").write_bytes(bytes(1000))
    for step in range(10):
        (context.out / f"part{step}").write_bytes(bytes(1000))
        time.sleep(context.inputs["seconds"] / 10)
    do_write(context)


def do_meet(context: StageContext) -> None:
    place = Path(context.local["path"])
    (place / context.inputs["name"]).touch()
    for _ in range(1000):  # twenty seconds
        if (place / "x").exists() and (place / "y").exists():
            return do_write(context)
        time.sleep(0.02)
    raise AssertionError("nobody came")


def do_sleep(context: StageContext) -> None:
    if "pid" in context.local:
        child = subprocess.Popen(["/bin/sleep", "100"])
        Path(context.local["pid"]).write_text(f"{os.getpid()} {child.pid}")
    time.sleep(100)


def do_segfault(context: StageContext) -> None:
    faulthandler.disable()
    for line in range(30):
        sys.stdout.write(f"line {line} before the crash\n")
    ctypes.CDLL(None).printf(b"C before the crash\n")
    os.kill(os.getpid(), 11)


def do_exit(context: StageContext) -> None:
    os._exit(7)


def do_user_error(context: StageContext) -> None:
    raise CheckpointError("bad weights", where="model.safetensors", remedy="get good ones")


def do_bug(context: StageContext) -> None:
    raise ValueError("two\nlines")


def do_system_exit(context: StageContext) -> None:
    sys.exit(3)


def do_disk_full(context: StageContext) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def do_noise(context: StageContext) -> None:
    sys.stdout.write('{"event": "done"}\n')
    sys.stderr.write("to stderr\n")
    libc = ctypes.CDLL(None)
    libc.printf(b"from C\n")
    subprocess.run(["/bin/sh", "-c", "echo from a child; cat"], check=True)
    os.write(1, b"\xff\xfe raw\n")
    do_write(context)


def do_progress(context: StageContext) -> None:
    context.progress.start(5000, "bytes")
    for _ in range(5000):
        context.progress.advance(1)
    context.progress.note("halfway")
    context.progress.advance(7)
    do_write(context)


def do_environment(context: StageContext) -> None:
    names = ("PYTHONHASHSEED", "TVM_NUM_THREADS", "TMPDIR")
    lines = [os.environ[name] for name in names]
    lines += [tempfile.gettempdir(), str("tvm" in sys.modules or "torch" in sys.modules)]
    (context.out / "data.txt").write_text("\n".join([*lines, type(context.local["path"]).__name__]))
