"""OpenCL C: the compiler's own front end reads it, and our built-in functions are linked in.

Three steps for each kernel: its text becomes LLVM's intermediate language; there the variables of
local memory are put where the engine finds them; then it is optimized together with the built-in
functions, which are kept as bitcode.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgec.errors import BuildError, VerificationError
from edgec.standins.emulation.cxx import CHECKED, CODE, CXX, LINK, run
from edgec.standins.emulation.dialect import RUNTIME
from edgec.standins.toolbox import clang, compiled, version

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgec.libraries.device import DeviceModule

SUBGROUP_WIDTH = 64

_PIECE = re.compile(r"^// Function: (\S+)$", re.MULTILINE)
# What drivers take a text for that says nothing.
_STANDARD = "CL1.2"
_EXTENSIONS = "+cl_khr_fp16,+cl_khr_fp64,+cl_khr_subgroups,+cl_khr_int64_base_atomics"
_SCALARS = {
    "bool": "uchar",
    "float16": "half",
    "float32": "float",
    "float64": "double",
    **{
        f"int{bits}": name for bits, name in ((8, "char"), (16, "short"), (32, "int"), (64, "long"))
    },
    **{
        f"uint{bits}": name
        for bits, name in ((8, "uchar"), (16, "ushort"), (32, "uint"), (64, "ulong"))
    },
}
# As the front end writes a variable of local memory for a CPU.
_LOCAL = re.compile(r"^(@\S+ = )internal (global .* undef)(, align \d+)?$", re.MULTILINE)
_FRONT_END = (
    *("-x", "cl", f"-cl-std={_STANDARD}", "-Xclang", f"-cl-ext={_EXTENSIONS}"),
    # A vector of halves may be read as integers.
    "-fno-strict-aliasing",
)
# Functions keep the marks of the optimization level, nothing is optimized yet.
_UNOPTIMIZED = ("-Xclang", "-disable-llvm-passes", "-emit-llvm")
_UNDEFINED = re.compile(r"undefined (?:reference|symbol)[^`':]*[`':]\s*([^\s'`]+)")


def piece(text: str, name: str) -> str:
    """What a driver gets to compile one kernel: TVM's runtime cuts the text at certain lines.

    Raises:
        VerificationError: the text has no such kernel.
    """
    start, end = _bounds(text, name)
    return text[start:end]


def translate(device: DeviceModule, name: str) -> str:
    """The kernel's piece of the text, and a function that calls it as the engine does.

    Raises:
        VerificationError: the text has no such kernel.
    """
    text = device.code_of(name).decode()
    start, end = _bounds(text, name)
    line = text.count("\n", 0, start) + 1
    info = device.functions[name]
    values = ", ".join(_slot(kind, i, name) for i, kind in enumerate(info.arg_types))
    # The slots are the engine's memory, not the kernel's.
    unchecked = '__attribute__((no_sanitize("kernel-address")))'
    body = f"{unchecked} void emu_body(const ulong* slots) {{ {info.name}({values}); }}"
    return f"#line {line}\n{text[start:end]}\n{body}\n"


def sources() -> Sequence[Path]:
    """See :class:`edgec.standins.emulation.dialect.Dialect`."""
    return [RUNTIME / "emu.h", RUNTIME / "opencl"]


def build(text: str, name: str, target: Path, *, checked: bool) -> None:
    """See :class:`edgec.standins.emulation.dialect.Dialect`."""
    where = f"kernel {name}"
    source = target.with_suffix(".cl")
    source.write_text(text)
    lines = target.with_suffix(".ll")
    flags = _flags(checked=checked)
    prologue = ("-include", str(RUNTIME / "opencl" / "prologue.h"))
    run(
        [
            clang(),
            *_FRONT_END,
            *prologue,
            *flags,
            *_UNOPTIMIZED,
            "-S",
            str(source),
            "-o",
            str(lines),
        ],
        where=where,
    )
    lines.write_text(_LOCAL.sub(r'\1hidden \2, section "emu_shared"\3', lines.read_text()))
    linked = [
        part
        for library in (_builtins(checked=checked), _work_items(checked=checked))
        for part in ("-Xclang", "-mlink-builtin-bitcode", "-Xclang", str(library))
    ]
    code = target.with_suffix(".o")
    run(
        [clang(), "-x", "ir", *flags, *linked, "-c", str(lines), "-o", str(code)],
        where=where,
    )
    try:
        run(
            [clang(), str(code), str(_entry(checked=checked)), "-o", str(target), *LINK],
            where=where,
        )
    except BuildError as error:
        missing = sorted({_plain(symbol) for symbol in _UNDEFINED.findall(str(error.__cause__))})
        if not missing:
            raise
        raise BuildError(
            f"the emulator lacks OpenCL's built-in function {', '.join(missing)}", where=where
        ) from error


def _bounds(text: str, name: str) -> tuple[int, int]:
    starts = {mark[1]: mark.start() for mark in _PIECE.finditer(text)}
    if name not in starts:
        raise VerificationError("the OpenCL text has no such kernel", where=f"kernel {name}")
    start = starts[name]
    return start, min((other for other in starts.values() if other > start), default=len(text))


def _slot(kind: str, index: int, name: str) -> str:
    if kind == "handle":
        return f"(__global void*)slots[{index}]"
    if kind not in _SCALARS:
        raise VerificationError(
            f"OpenCL kernels have no arguments of the type {kind}", where=f"kernel {name}"
        )
    return f"*(const {_SCALARS[kind]}*)(slots + {index})"


def _flags(*, checked: bool) -> list[str]:
    return [*CODE, *(CHECKED if checked else ())]


def _builtins(*, checked: bool) -> Path:
    source = RUNTIME / "opencl" / "builtins.cl"
    # Ours stand in place of the compiler's declarations.
    options = [*_FRONT_END, "-cl-no-stdinc", *_flags(checked=checked), *_UNOPTIMIZED]
    return _part("builtins.bc", source, [clang(), *options])


def _work_items(*, checked: bool) -> Path:
    source = RUNTIME / "opencl" / "work_items.cc"
    # Not instrumented itself: it touches the engine's memory, not the kernel's.
    defined = ["-DEMU_CHECKED"] if checked else []
    options = [*CXX, *CODE, *defined, f"-I{RUNTIME}", "-emit-llvm"]
    return _part("work_items.bc", source, [clang("c++"), *options])


def _entry(*, checked: bool) -> Path:
    source = RUNTIME / "opencl" / "entry.cc"
    options = [*CXX, *_flags(checked=checked), f"-I{RUNTIME}"]
    return _part("entry.o", source, [clang("c++"), *options])


def _part(name: str, source: Path, command: list[str]) -> Path:
    def compile_it(target: Path) -> None:
        run([*command, "-c", str(source), "-o", str(target)], where=source.name)

    relative = [part for part in command if str(RUNTIME) not in part]
    return compiled([version(command[0]), *relative, *sources()], compile_it, name)


def _plain(symbol: str) -> str:
    # Of a mangled name, _Z<length><name><types>, the name.
    match = re.fullmatch(r"_Z(\d+)(.+)", symbol)
    return match[2][: int(match[1])] if match else symbol
