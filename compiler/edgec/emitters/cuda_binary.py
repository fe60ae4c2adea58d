"""Machine code for NVIDIA's GPUs from CUDA text, without a GPU and without a driver.

TVM's text is compiled by NVRTC. One architecture gives a cubin; several give a fat binary, which
also holds PTX of the newest one, so that GPUs to come can run it. TVM hands both to the driver
as they are.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.emitters import cuda_worker
from edgec.emitters.cuda_cubin import KernelFacts, kernel_facts
from edgec.emitters.cuda_headers import STANDARD_HEADERS
from edgec.emitters.cuda_toolkit import CudaToolkit, find_toolkit, install_command
from edgec.errors import BuildError, EdgecError, ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.progress import Progress

# A compiler takes one core and 200 MB; more of them would push out what else is built.
_MOST_PROCESSES = 2
_NAME = "kernels.cu"
_OPTIONS = (
    "--std=c++17",
    # TVM's helper functions don't say that they are for the device.
    "--device-as-default-execution-space",
    # What nvcc does by itself, and what TVM's text for 128-bit loads takes for granted.
    "--device-int128",
    "--disable-warnings",
    "--ptxas-options=-v",
)
_INVALID_OPTION, _NO_BUILTINS = 5, 7  # of NVRTC's results
_PRINTED = 2000  # characters of a log that fit in an error message


@dataclass(frozen=True)
class DeviceBinary:
    """Machine code of a library's kernels.

    Attributes:
        format: in TVM's words: ``"cubin"`` or ``"fatbin"``.
        code: what TVM hands to the driver.
        architectures: of the GPUs that run it as it is: ``("sm_80", "sm_90")``.
        parts: version of each part of the toolkit that the bytes depend on; see
            :attr:`CudaToolkit.parts <edgec.emitters.cuda_toolkit.CudaToolkit.parts>`.
        kernels: what each kernel takes, for each architecture.
    """

    format: str
    code: bytes
    architectures: tuple[str, ...]
    parts: Mapping[str, str]
    kernels: tuple[KernelFacts, ...]


@dataclass(frozen=True)
class _Compiled:
    architecture: str
    cubin: bytes
    ptx: bytes
    log: str


def compile_cuda(
    source: str, architectures: Sequence[str], toolkit: str | None, progress: Progress
) -> DeviceBinary:
    """Compile CUDA text; equal arguments and toolkits give equal bytes.

    Args:
        source: as TVM writes it, all kernels of a library.
        architectures: of the GPUs: ``("sm_87",)``.
        toolkit: the beginning of the version to compile with (``"12"``, ``"12.6.85"``), or None
            for the oldest that is there.
        progress: hears of every architecture.

    Raises:
        ToolchainError: the toolkit is missing, incomplete, or doesn't know an architecture.
        BuildError: the text doesn't compile, or the compiler crashed.
    """
    assert architectures
    found = find_toolkit(toolkit)
    tensor_cores = _tensor_core_headers(source, found)
    headers = {**STANDARD_HEADERS, **tensor_cores}
    several = len(architectures) > 1
    if several and found.nvfatbin is None:
        raise _incomplete(found, "nvFatbin, which packs several architectures into one file")
    unused = {"crt": not tensor_cores, "nvfatbin": not several}

    def compiled(architecture: str) -> _Compiled:
        progress.note(f"CUDA {found.version}: machine code for {architecture}")
        return _compile(source, architecture, found, headers)

    with ThreadPoolExecutor(min(_MOST_PROCESSES, len(architectures))) as pool:
        results = list(pool.map(compiled, architectures))
    return DeviceBinary(
        "fatbin" if several else "cubin",
        _pack(results, found) if several else results[0].cubin,
        tuple(architectures),
        {part: version for part, version in found.parts.items() if not unused.get(part)},
        tuple(
            fact for one in results for fact in kernel_facts(one.cubin, one.architecture, one.log)
        ),
    )


def same_code(
    text: str, binary: bytes, architectures: Sequence[str], toolkit: str | None, progress: Progress
) -> bool:
    """Whether machine code is what a text compiles to: what ran as text is what ships.

    Args:
        text: of the kernels.
        binary: a cubin or a fat binary of :func:`compile_cuda`.
        architectures: those it was compiled for.
        toolkit: the version it was compiled with, in full.
        progress: hears of every architecture.

    Raises:
        ToolchainError: that toolkit isn't here.
        BuildError: the text doesn't compile.
    """
    return compile_cuda(text, architectures, toolkit, progress).code == binary


def _tensor_core_headers(source: str, toolkit: CudaToolkit) -> dict[str, str]:
    """``<mma.h>`` is with the other headers; it includes these two."""
    if "#include <mma.h>" not in source:
        return {}
    if toolkit.crt is None:
        raise _incomplete(toolkit, "crt/mma.h, the header of tensor cores")
    header, body = ((toolkit.crt / name).read_text() for name in ("mma.h", "mma.hpp"))
    return {"crt/mma.h": header, "mma.hpp": body}


def _incomplete(toolkit: CudaToolkit, what: str) -> ToolchainError:
    return ToolchainError(
        f"CUDA {toolkit.version} is there without {what}",
        where=str(toolkit.nvrtc),
        remedy=f"run: {install_command(toolkit.version)}",
    )


def _compile(
    source: str, architecture: str, toolkit: CudaToolkit, headers: Mapping[str, str]
) -> _Compiled:
    job = {
        "task": "compile",
        "nvrtc": str(toolkit.nvrtc),
        "builtins": str(toolkit.builtins),
        "source": source,
        "name": _NAME,
        "headers": headers,
        "options": [
            f"--gpu-architecture={architecture}",
            f"--include-path={toolkit.include}",
            *_OPTIONS,
        ],
    }
    answer = _work(job, f"NVRTC {toolkit.version} for {architecture}")
    if answer["result"]:
        raise _refusal(answer, architecture, toolkit)
    return _Compiled(
        architecture,
        base64.b64decode(answer["cubin"]),
        base64.b64decode(answer["ptx"]),
        answer["log"],
    )


def _refusal(answer: Mapping[str, Any], architecture: str, toolkit: CudaToolkit) -> EdgecError:
    where = f"NVRTC {toolkit.version} for {architecture}"
    log = answer["log"].strip()
    if answer["result"] == _INVALID_OPTION and "--gpu-architecture" in log:
        return ToolchainError(
            f"this version does not know the architecture {architecture}",
            where=where,
            remedy="name a toolkit in the target's profile that knows it",
        )
    if answer["result"] == _NO_BUILTINS:
        return ToolchainError(
            f"the compiler's files don't fit together: {log[:_PRINTED]}",
            where=where,
            remedy=f"run: {install_command(toolkit.version)} --force-reinstall",
        )
    return BuildError(
        f"the kernels' text does not compile (NVRTC's result {answer['result']}): {log[:_PRINTED]}",
        where=where,
        remedy="this is a fault of edgec or TVM; please report it with the recipe and the target",
    )


def _pack(results: Sequence[_Compiled], toolkit: CudaToolkit) -> bytes:
    newest = max(results, key=lambda one: int(one.architecture[3:].rstrip("af")))
    # Architectures that end with a letter have instructions that later GPUs don't have.
    lasts = newest.architecture[-1].isdigit()
    job = {
        "task": "pack",
        "nvfatbin": str(toolkit.nvfatbin),
        "name": _NAME,
        "cubins": [(_number(one.architecture), _text(one.cubin)) for one in results],
        "ptx": [(_number(newest.architecture), _text(newest.ptx))] if lasts else [],
    }
    where = f"nvFatbin {toolkit.parts['nvfatbin']}"
    answer = _work(job, where)
    if answer["result"]:
        raise BuildError(
            f"packing several architectures into one file failed (result {answer['result']})",
            where=where,
            remedy="name one architecture in the target's profile, or install another version",
        )
    return base64.b64decode(answer["fatbin"])


def _number(architecture: str) -> str:
    return architecture.removeprefix("sm_")


def _text(code: bytes) -> str:
    return base64.b64encode(code).decode("ascii")


def _work(job: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Give a job to a fresh child process, and wait for its answer."""
    # Variables that change what NVIDIA's tools do would change the bytes.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("NVCC", "NVRTC", "CUDA"))
    }
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(Path(cuda_worker.__file__))],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if done.returncode == 0:
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer
    end = (
        f"was ended by {signal.Signals(-done.returncode).name}"
        if done.returncode < 0
        else f"ended with status {done.returncode}"
    )
    raise BuildError(
        f"the compiler's process {end}: {done.stderr.strip()[-_PRINTED:] or 'it said nothing'}",
        where=where,
        remedy="try again with more memory, or install another version of the toolkit",
    )
