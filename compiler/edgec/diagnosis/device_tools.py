"""The programs that targets for other devices need: to link for them, and to stand in for them."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from edgec.diagnosis.check import Check, State
from edgec.diagnosis.packages import installed
from edgec.emitters.cuda_toolkit import find_toolkit
from edgec.emitters.toolchain import Linker, linker_for, version
from edgec.emitters.web.toolchain import web_toolchain_report
from edgec.errors import EdgecError, ToolchainError
from edgec.standins import toolbox
from edgec.standins.wgpu.adapter import find_adapter
from edgec.target import load_target
from edgec.target.host import architecture

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgec.target import Target

_VERIFY = "runs the library on a stand-in; without it build with --no-verify"


def check_tools(names: Sequence[str]) -> Iterator[Check]:
    """Look for what the targets of these names need, each program once.

    What building needs is missing where it is not there; what only verifying needs is a warning.
    Targets that can't be loaded are left out, they have a check of their own.
    """
    seen = set()
    for name in names:
        try:
            target = load_target(name)
        except EdgecError:
            continue
        for check in (*_to_build(target), *_to_verify(target)):
            if check not in seen:
                seen.add(check)
                yield check


def _to_build(target: Target) -> Iterator[Check]:
    if "shared" in target.library.forms and target.standin != "native":
        needed = f"links for {target.triple}"
        try:
            linker = linker_for(target.platform, target.triple)
            yield Check("linker", "ok", _described(linker), needed)
        except ToolchainError as error:
            yield Check("linker", "missing", error.what, needed, error.remedy)
    if "wasm" in target.library.forms:
        for tool in web_toolchain_report():
            state: State = "ok" if tool.found else "missing"
            yield Check(tool.name, state, tool.found or "not here", tool.needed, tool.remedy)
    if target.library.cuda_architectures:
        wanted = target.library.cuda_toolkit
        needed = f"machine code for {', '.join(target.library.cuda_architectures)}"
        try:
            found = find_toolkit(wanted)
            yield Check("CUDA toolkit", "ok", f"{found.version} ({found.nvrtc})", needed)
        except ToolchainError as error:
            yield Check("CUDA toolkit", "missing", error.what, needed, error.remedy)


def _to_verify(target: Target) -> Iterator[Check]:
    if target.standin == "native":
        return
    if target.standin == "wgpu":
        yield _webgpu()
        return
    yield _tool("C++ compiler", toolbox.cxx)
    if target.tvm["kind"] != "llvm":
        yield _tool("clang", lambda: toolbox.clang("c++"))
    if "shared" not in target.library.forms:
        yield _tool("lld", toolbox.lld)
    cpu = target.architecture
    if cpu != architecture(platform.machine()):
        yield _tool(f"{cpu} C++", lambda: toolbox.cross_cxx(cpu))
        yield _tool(f"qemu-{cpu}", lambda: toolbox.qemu(cpu))


def _webgpu() -> Check:
    name = "WebGPU"
    try:
        adapter = find_adapter()
    except ToolchainError as error:
        return Check(name, "warning", error.what, _VERIFY, error.remedy)
    if not installed("wasmtime"):
        return Check(name, "warning", "wasmtime is missing", _VERIFY, "run: pip install wasmtime")
    return Check(name, "ok", str(adapter.info["device"]), _VERIFY)


def _tool(name: str, find: Callable[[], str]) -> Check:
    try:
        path = find()
    except ToolchainError as error:
        return Check(name, "warning", error.what, _VERIFY, error.remedy)
    return Check(name, "ok", f"{toolbox.version(path)} ({path})", _VERIFY)


def _described(linker: Linker) -> str:
    return f"{version(linker.command)} ({' '.join(linker.command)})"
