"""A child process in which NVIDIA's compilers run, so that their crash is an error message.

Run by its path, it imports nothing of edgec. It reads one JSON object from standard input and
writes one to standard output; bytes travel as base64.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import sys
from typing import Any


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _strings(values: list[str]) -> Any:
    return (ctypes.c_char_p * len(values))(*[value.encode() for value in values])


def _output(library: Any, what: str, program: ctypes.c_void_p) -> bytes:
    """The log, the cubin or the PTX of a program: two functions each, for its size and for it."""
    size = ctypes.c_size_t()
    if getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)):
        return b""
    buffer = ctypes.create_string_buffer(size.value)
    if getattr(library, f"nvrtcGet{what}")(program, buffer):
        return b""
    return buffer.raw


def compile_text(job: dict[str, Any]) -> dict[str, Any]:
    """Compile CUDA text.

    Args:
        job: ``nvrtc`` and ``builtins`` (paths), ``source``, ``name``, ``headers`` (text by name)
            and ``options``.

    Returns:
        ``result`` (NVRTC's number, 0 is success), ``log``, ``cubin`` and ``ptx``.
    """
    # NVRTC looks for its other half along the loader's path, which knows nothing of packages.
    ctypes.CDLL(job["builtins"], mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(job["nvrtc"])
    program = ctypes.c_void_p()
    headers = job["headers"]
    result = library.nvrtcCreateProgram(
        ctypes.byref(program),
        job["source"].encode(),
        job["name"].encode(),
        len(headers),
        _strings(list(headers.values())),
        _strings(list(headers)),
    )
    if result:
        return {"result": result, "log": "NVRTC did not accept the program"}
    options = job["options"]
    result = library.nvrtcCompileProgram(program, len(options), _strings(options))
    answer = {
        "result": result,
        "log": _output(library, "ProgramLog", program).rstrip(b"\0").decode(errors="replace"),
    }
    if not result:
        answer["cubin"] = _encoded(_output(library, "CUBIN", program))
        # The size of PTX counts its terminating zero, which the fat binary wants as well.
        answer["ptx"] = _encoded(_output(library, "PTX", program))
    return answer


def pack(job: dict[str, Any]) -> dict[str, Any]:
    """Put machine code for several architectures into one fat binary.

    Args:
        job: ``nvfatbin`` (path), ``name``, ``cubins`` and ``ptx`` (pairs of architecture and code).

    Returns:
        ``result`` (nvFatbin's number, 0 is success), ``log`` and ``fatbin``.
    """
    library = ctypes.CDLL(job["nvfatbin"])
    handle = ctypes.c_void_p()
    name = job["name"].encode()
    result = library.nvFatbinCreate(ctypes.byref(handle), _strings(["-64"]), 1)
    for architecture, code in job["cubins"]:
        if not result:
            raw = base64.b64decode(code)
            result = library.nvFatbinAddCubin(
                handle, raw, ctypes.c_size_t(len(raw)), architecture.encode(), name
            )
    for architecture, code in job["ptx"]:
        if not result:
            raw = base64.b64decode(code)
            result = library.nvFatbinAddPTX(
                handle, raw, ctypes.c_size_t(len(raw)), architecture.encode(), name, b""
            )
    size = ctypes.c_size_t()
    result = result or library.nvFatbinSize(handle, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    result = result or library.nvFatbinGet(handle, buffer)
    return {"result": result, "log": "", "fatbin": _encoded(buffer.raw)}


def _main() -> None:
    # Whatever the libraries print must not get between the bytes of the answer.
    answers = os.dup(1)
    os.dup2(2, 1)
    job = json.load(sys.stdin)
    answer = {"compile": compile_text, "pack": pack}[job["task"]](job)
    with os.fdopen(answers, "w") as out:
        json.dump(answer, out)


if __name__ == "__main__":
    _main()
