"""NVIDIA's run-time compiler and its headers: found among Python packages or in a CUDA toolkit.

Nothing is loaded. A GPU, a driver or an installed toolkit is not needed: the packages are enough.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgec.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Up to CUDA 12 the packages' names end with the major version.
_SUFFIXES = {12: "-cu12"}
_OLDEST, _NEWEST = 12, 13
# The releases whose machine code loads with the oldest drivers of today's devices.
_ADVISED = {12: "12.6", 13: "13.0"}
_FULL = 2  # dots in a full version
# A toolkit calls the machines it runs on by names of its own.
_TARGETS = {"x86_64": "x86_64-linux", "aarch64": "sbsa-linux"}
_LIBRARY = re.compile(r"\.so\.(\d+(?:\.\d+)*)$")
_NVRTC = re.compile(r"/libnvrtc\.so\.\d+$")
_BUILTINS = re.compile(r"/libnvrtc-builtins\.so\.[\d.]+$")
_NVFATBIN = re.compile(r"/libnvfatbin\.so\.\d+$")
_FP16 = re.compile(r"/cuda_fp16\.h$")
_MMA = re.compile(r"/crt/mma\.h$")


@dataclass(frozen=True)
class CudaToolkit:
    """What is needed to make machine code for NVIDIA's GPUs.

    Attributes:
        version: of the compiler: ``"12.6.85"``.
        nvrtc: the compiler, a shared library.
        builtins: the shared library that the compiler loads.
        include: folder of ``cuda_fp16.h``.
        crt: folder of ``mma.h`` and ``mma.hpp``, which text that uses tensor cores includes through
            ``<mma.h>``; None if they are missing.
        nvfatbin: the shared library that packs several architectures into one file, or None.
        parts: version of each part that the bytes of the machine code depend on.
    """

    version: str
    nvrtc: Path
    builtins: Path
    include: Path
    crt: Path | None
    nvfatbin: Path | None
    parts: Mapping[str, str]


def find_toolkit(wanted: str | None = None) -> CudaToolkit:
    """The toolkit of a version: from Python packages, else one installed in a folder.

    Args:
        wanted: the beginning of a version: ``"13"``, ``"12.6"``, ``"12.6.85"``. None is the oldest
            that is there, since its machine code loads with the most drivers.

    Raises:
        ToolchainError: there is none.
    """
    assert wanted is None or _numbers(wanted), wanted
    found = sorted(
        (toolkit for toolkit in (*_in_packages(), *_in_folders()) if _fits(toolkit, wanted)),
        # Sorting keeps packages before folders where the version decides nothing.
        key=lambda toolkit: _numbers(toolkit.version)[:1] if wanted is None else (),
    )
    if found:
        return found[0]
    raise ToolchainError(
        "machine code for NVIDIA GPUs needs NVIDIA's run-time compiler and its headers,"
        f" and {_named(wanted)} was not found",
        where="nvrtc",
        remedy=f"run: {install_command(wanted)}",
    )


def install_command(wanted: str | None) -> str:
    """The command that installs what :func:`find_toolkit` looks for."""
    version = wanted or str(_OLDEST)
    if "." not in version:
        version = _ADVISED.get(int(version), version)
    # The parts of a toolkit have the same major and minor version, and each its own third number.
    minor = ".".join(version.split(".")[:2])
    # The headers of tensor cores have a package of their own from CUDA 13 on.
    crt = minor if _numbers(version)[0] > _OLDEST else _ADVISED[13]
    return install_parts({"nvrtc": version, "headers": minor, "nvfatbin": minor, "crt": crt})


def install_parts(parts: Mapping[str, str]) -> str:
    """The command that installs these versions of :attr:`CudaToolkit.parts`."""
    names = [f"{_part_package(part, version)}=={version}" for part, version in parts.items()]
    pins = [name if name.count(".") == _FULL else f"{name}.*" for name in names]
    return f"pip install {' '.join(repr(pin) for pin in pins)}"


def _part_package(part: str, version: str) -> str:
    major = _numbers(version)[0]
    if part == "crt":
        return _package("nvcc", major) if major in _SUFFIXES else "nvidia-cuda-crt"
    return _package("runtime" if part == "headers" else part, major)


def _named(wanted: str | None) -> str:
    return f"version {wanted}" if wanted else "none"


def _package(part: str, major: int) -> str:
    middle = "nvfatbin" if part == "nvfatbin" else f"cuda-{part}"
    return f"nvidia-{middle}{_SUFFIXES.get(major, '')}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _fits(toolkit: CudaToolkit, wanted: str | None) -> bool:
    parts = _numbers(wanted or "")
    return _numbers(toolkit.version)[: len(parts)] == parts


def _in_packages() -> Iterator[CudaToolkit]:
    for major in range(_OLDEST, _NEWEST + 1):
        compiler = _distribution("nvrtc", major)
        headers = _distribution("runtime", major)
        if compiler is None or headers is None:
            continue
        nvrtc, builtins = _file(compiler, _NVRTC), _file(compiler, _BUILTINS)
        fp16 = _file(headers, _FP16)
        if nvrtc is None or builtins is None or fp16 is None:
            continue
        fatbin = _distribution("nvfatbin", major)
        crt, mma = _tensor_core_headers(major)
        parts = {"nvrtc": compiler.version, "headers": headers.version}
        if fatbin is not None:
            parts["nvfatbin"] = fatbin.version
        if crt is not None:
            parts["crt"] = crt.version
        yield CudaToolkit(
            compiler.version,
            nvrtc,
            builtins,
            fp16.parent,
            mma.parent if mma is not None else None,
            _file(fatbin, _NVFATBIN),
            parts,
        )


def _tensor_core_headers(major: int) -> tuple[metadata.Distribution | None, Path | None]:
    # CUDA 12 has them in the package of its command-line compiler, which is twenty times as large
    # as all headers together; the same bytes are in CUDA 13's package of headers.
    names = [_package("nvcc", major)] if major in _SUFFIXES else []
    for name in (*names, "nvidia-cuda-crt"):
        distribution = _installed(name)
        mma = _file(distribution, _MMA)
        if mma is not None:
            return distribution, mma
    return None, None


def _distribution(part: str, major: int) -> metadata.Distribution | None:
    found = _installed(_package(part, major))
    return found if found is not None and _numbers(found.version)[:1] == (major,) else None


def _installed(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _file(distribution: metadata.Distribution | None, name: re.Pattern[str]) -> Path | None:
    """The file of a package whose path matches, if it is really there."""
    files = (distribution.files if distribution is not None else None) or []
    for path in files:
        if name.search(f"/{path.as_posix()}"):
            place = Path(os.fspath(path.locate()))
            return place if place.exists() else None
    return None


def _in_folders() -> Iterator[CudaToolkit]:
    seen = set()
    for root in _roots():
        library = next((p for p in _libraries(root, "libnvrtc.so.*")), None)
        version = _LIBRARY.search(str(library.resolve())) if library is not None else None
        if library is None or version is None or library.resolve() in seen:
            continue
        seen.add(library.resolve())
        builtins = next(_libraries(root, "libnvrtc-builtins.so.*"), None)
        headers = [p.parent for p in _headers(root, "cuda_fp16.h")]
        if builtins is None or not headers:
            continue
        nvfatbin = next(_libraries(root, "libnvfatbin.so.*"), None)
        mma = next((p.parent for p in _headers(root, "crt/mma.h")), None)
        numbers = version.group(1)
        parts = {"nvrtc": numbers, "headers": numbers, "crt": numbers, "nvfatbin": numbers}
        yield CudaToolkit(numbers, library, builtins, headers[0], mma, nvfatbin, parts)


def _roots() -> Iterator[Path]:
    """Where toolkits are: named in the environment, around nvcc, in the usual folders."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield Path(os.environ[variable])
    nvcc = shutil.which("nvcc")
    if nvcc is not None:
        yield Path(nvcc).resolve().parent.parent
    yield Path("/usr/local/cuda")
    # The newest release of each major version comes first.
    yield from sorted(Path("/usr/local").glob("cuda-*"), key=lambda p: _numbers(p.name))[::-1]
    yield Path("/usr")


def _libraries(root: Path, name: str) -> Iterator[Path]:
    machine = platform.machine()
    for folder in ("lib64", f"targets/{_TARGETS.get(machine, machine)}/lib"):
        yield from sorted((root / folder).glob(name))
    yield from sorted((root / "lib" / f"{machine}-linux-gnu").glob(name))


def _headers(root: Path, name: str) -> Iterator[Path]:
    machine = platform.machine()
    for folder in ("include", f"targets/{_TARGETS.get(machine, machine)}/include"):
        if (root / folder / name).is_file():
            yield root / folder / name
