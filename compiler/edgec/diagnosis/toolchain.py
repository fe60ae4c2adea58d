"""The C compiler and TVM, each tried out in a process of its own."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from edgec.diagnosis.check import Check
from edgec.emitters.toolchain import c_compiler, c_compiler_version
from edgec.errors import ToolchainError

_SOURCE = """\
int edgec_doctor(int value);
int edgec_doctor(int value) { return value + 1; }
"""
_TIME_LIMIT = 120  # seconds, for a first start from a slow disk
_LOAD = "from edgec.ir.load import load_tvm; load_tvm(); import tvm; print(tvm.__version__)"
_INSTALL = "install a C compiler (on Debian or Ubuntu: apt-get install gcc libc6-dev)"


def check_c_compiler() -> Check:
    """Can it link a shared library that this process can load?"""
    name, needed = "C compiler", "links shared libraries"
    try:
        compiler = c_compiler()
    except ToolchainError as error:
        return Check(name, "missing", error.what, needed, error.remedy)
    try:
        with tempfile.TemporaryDirectory(prefix="edgec-doctor-") as folder:
            problem = _link(compiler, Path(folder))
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    if problem:
        return Check(
            name, "missing", f"{compiler}: {problem}", needed, f"{_INSTALL}, or name another in CC"
        )
    return Check(name, "ok", c_compiler_version(), needed)


def check_tvm_loads() -> Check:
    """Can TVM be imported? In a child process: a wrong pair of wheels crashes."""
    name = "TVM loads"
    environment = dict(os.environ)
    source = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(
        [source, *filter(None, [environment.get("PYTHONPATH")])]
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LOAD],
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIME_LIMIT,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check(name, "missing", str(error), remedy="install the packages again")
    if done.returncode == 0:
        return Check(name, "ok", f"version {done.stdout.strip()}")
    if done.returncode < 0:
        found = f"the import was killed by {_signal_name(-done.returncode)}"
        remedy = "install apache-tvm and apache-tvm-ffi in the versions named above"
    else:
        lines = done.stderr.strip().splitlines()
        found = lines[-1] if lines else f"the import ended with code {done.returncode}"
        remedy = "install the packages again; the last line of the import is quoted"
    return Check(name, "missing", found, "import tvm", remedy)


def _link(compiler: str, folder: Path) -> str:
    """What went wrong; empty if nothing did."""
    source, library = folder / "doctor.c", folder / "doctor.so"
    source.write_text(_SOURCE)
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(source)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIME_LIMIT,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return lines[0] if lines else f"it ended with code {done.returncode}"
    try:
        answer = ctypes.CDLL(str(library)).edgec_doctor(41)
    except (OSError, AttributeError) as error:
        return f"its library can't be loaded ({error})"
    return "" if answer == 42 else "its code computes wrong numbers"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
