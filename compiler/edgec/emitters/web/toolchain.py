"""The compilers that make libraries for browsers, and what is missing where there is none."""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgec.cachefolder import TOOLS, cache_root
from edgec.emitters.toolchain import version
from edgec.emitters.web.wasi import SDK_VARIABLE, TRIPLE, WasiClang, find_wasi_clang
from edgec.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

EMSCRIPTEN_VARIABLE = "EMSCRIPTEN"
_ZIG = "ziglang"
_RUNTIME = "compiles TVM's runtime for browsers and links it with a model's code"

Kind = Literal["clang", "zig", "emscripten"]


@dataclass(frozen=True)
class WebToolchain:
    """What compiles and links C++ for WebAssembly.

    Attributes:
        kind: ``"clang"`` with the libraries of WASI, ``"zig"``, which brings both, or
            ``"emscripten"``.
        command: the compiler driver, and the arguments that every call of it begins with.
        parts: version of each part that the bytes of a library depend on.
        environment: variables that it runs with, besides those that are set.
    """

    kind: Kind
    command: tuple[str, ...]
    parts: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WebTool:
    """One thing that building for browsers needs.

    Attributes:
        name: what it is.
        found: its version and where it is; empty if it is missing.
        needed: what it does.
        remedy: what to do where it is missing, as an imperative clause; else empty.
    """

    name: str
    found: str
    needed: str
    remedy: str = ""


def find_web_toolchain() -> WebToolchain:
    """The compiler for browsers.

    In this order: the Emscripten in the folder ``EMSCRIPTEN``; the WASI SDK in the folder
    ``WASI_SDK_PATH``; clang with the libraries of Debian's packages for WebAssembly; the Python
    package ziglang; ``emcc`` on the path.

    Raises:
        ToolchainError: there is none, or a variable names a folder without one.
    """
    if folder := os.environ.get(EMSCRIPTEN_VARIABLE):
        return _emscripten(_named_emcc(folder))
    clang = find_wasi_clang()
    if not clang.missing:
        return WebToolchain("clang", clang.command, clang.versions())
    if sdk := os.environ.get(SDK_VARIABLE):
        raise ToolchainError(
            f"{SDK_VARIABLE} names {sdk!r}, in which there is no {clang.missing[0].name}",
            where=SDK_VARIABLE,
            remedy="correct it, or unset it",
        )
    if (zig := _zig()) is not None:
        return zig
    if emcc := shutil.which("emcc"):
        return _emscripten(os.path.abspath(emcc))
    part = clang.missing[0]
    raise ToolchainError(
        f"there is no {part.name}, which {part.needed}",
        where=part.name,
        remedy=_remedy(clang),
    )


def web_toolchain_report() -> tuple[WebTool, ...]:
    """What building for browsers needs, part by part, with what installs the missing parts."""
    try:
        found = find_web_toolchain()
    except ToolchainError as error:
        if error.where in {EMSCRIPTEN_VARIABLE, SDK_VARIABLE}:
            return (WebTool(error.where, "", _RUNTIME, error.remedy), _sources())
        return (*_clang_tools(find_wasi_clang()), _sources())
    if found.kind == "clang":
        return (*_clang_tools(find_wasi_clang()), _sources())
    said = f"{' '.join(found.parts.values())} ({found.command[0]})"
    return (WebTool(found.kind, said, _RUNTIME), _sources())


def _clang_tools(clang: WasiClang) -> Iterable[WebTool]:
    for part in clang.parts:
        found = part.path
        if found and part.name in {"clang++", "wasm-ld"}:
            found = f"{version((found,))} ({found})"
        yield WebTool(part.name, found, part.needed, "" if found else _remedy(clang))


def _sources() -> WebTool:
    """TVM's wheel brings the runtime's sources; a TVM that somebody compiled may lack them."""
    folder = package_folder("tvm") / "web" / "emcc"
    there = (folder / "wasm_runtime.cc").exists()
    return WebTool(
        "TVM's sources for browsers",
        f"{metadata.version('apache-tvm')} ({folder})" if there else "",
        "are what the runtime for browsers is compiled from",
        "" if there else "install the wheel of apache-tvm that edgec requires",
    )


def package_folder(name: str) -> Path:
    """The folder of an installed Python package, which isn't imported.

    Raises:
        ToolchainError: it isn't installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ToolchainError(
            f"there is no Python package {name}",
            where=name,
            remedy="install edgec again with all that it requires",
        )
    return Path(spec.origin).parent


def _zig() -> WebToolchain | None:
    try:
        number = metadata.version(_ZIG)
    except metadata.PackageNotFoundError:
        return None
    program = package_folder(_ZIG) / ("zig.exe" if os.name == "nt" else "zig")
    # Zig compiles the C and C++ libraries when they are first needed, and keeps them.
    cache = str(cache_root() / TOOLS / "zig")
    return WebToolchain(
        "zig",
        (str(program), "c++", "-target", TRIPLE),
        {"zig": number},
        {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache},
    )


def _emscripten(emcc: str) -> WebToolchain:
    return WebToolchain("emscripten", (emcc,), {"emcc": version((emcc,))})


def _named_emcc(folder: str) -> str:
    path = shutil.which(str(Path(folder) / "emcc"))
    if not path:
        raise ToolchainError(
            f"{EMSCRIPTEN_VARIABLE} names {folder!r}, in which there is no emcc",
            where=EMSCRIPTEN_VARIABLE,
            remedy="correct it, or unset it",
        )
    return os.path.abspath(path)


def _remedy(clang: WasiClang) -> str:
    packages = " ".join(part.package for part in clang.missing)
    return f"run: pip install ziglang (or on Debian or Ubuntu: apt-get install {packages})"
