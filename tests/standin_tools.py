"""Marks for tests that need a program which not every machine has.

Without it they are skipped, with the command that installs it; where ``CI`` is set they run, and
fail by the same message.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from edgec.emitters.web.toolchain import find_web_toolchain
from edgec.errors import EdgecError, ToolchainError
from edgec.standins import npm, toolbox
from edgec.standins.dawn.adapter import driver_environment
from edgec.standins.webllm.browser import find_browser

if TYPE_CHECKING:
    from collections.abc import Callable


def _pocl() -> object:
    # OpenCL is loaded only where a test asks for it.
    from edgec.standins.pocl.opencl import find_device  # noqa: PLC0415

    return find_device()


def _wgpu() -> object:
    # So is WebGPU.
    from edgec.standins.wgpu.adapter import find_adapter  # noqa: PLC0415

    return find_adapter()


def _wasmtime() -> object:
    try:
        import wasmtime  # noqa: PLC0415 - loads a large library
    except ImportError as error:
        raise ToolchainError(str(error), where="wasmtime", remedy="pip install wasmtime") from error
    return wasmtime


_FINDERS: dict[str, Callable[[], object]] = {
    "clang": toolbox.clang,
    "clang++": lambda: toolbox.clang("c++"),
    "lld": toolbox.lld,
    "cxx": toolbox.cxx,
    "qemu-aarch64": lambda: toolbox.qemu("aarch64"),
    "aarch64-linux-gnu-g++": lambda: toolbox.cross_cxx("aarch64"),
    "pocl": _pocl,
    "wgpu": _wgpu,
    "wasmtime": _wasmtime,
    "web toolchain": find_web_toolchain,
    "dawn": driver_environment,
    "chromium": find_browser,
    "node": npm.node,
}


def missing(name: str) -> str:
    """Why this tool can't be used, and what to do; empty if it can."""
    try:
        _FINDERS[name]()
    except EdgecError as error:
        return str(error)
    return ""


def needs(name: str) -> pytest.MarkDecorator:
    """Skip a test where the tool ``name`` is missing, unless ``CI`` is set.

    For a whole file: ``pytestmark = needs("clang")``; several: a list of marks.
    """
    reason = missing(name)
    return pytest.mark.skipif(bool(reason) and not os.environ.get("CI"), reason=reason or name)
