"""How kernels, and the engine itself, are compiled for this CPU."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from edgec.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Sequence

# A kernel is executed as it is written: a * b + c isn't contracted, nothing is reordered.
CODE = (
    *("-O2", "-march=native", "-fPIC", "-fvisibility=hidden", "-w", "-ffp-contract=off"),
    # Too much private memory then touches the page that guards a stack, not the next stack.
    "-fstack-clash-protection",
)
CXX = (
    *("-std=c++20", "-fno-exceptions", "-fno-rtti"),
    # Each operation on _Float16 rounds, as it does on a GPU; C would keep float until the end.
    *("-Xclang", "-ffloat16-excess-precision=none"),
)
LINK = ("-shared", "-nostdlib", "-Wl,-z,defs", "-Wl,--gc-sections", "-lc", "-lm")
# Each access of the kernel's code calls a function of emu.h's, also the second one to the same
# address: a read and a write count differently for races.
CHECKED = (
    "-DEMU_CHECKED",
    "-fsanitize=kernel-address",
    *("-mllvm", "-asan-instrumentation-with-call-threshold=0"),
    *("-mllvm", "-asan-stack=0"),
    *("-mllvm", "-asan-globals=0"),
    *("-mllvm", "-asan-opt=0"),
    # Copies of whole structures call __asan_memcpy and not memcpy.
    *("-mllvm", "-asan-kernel-mem-intrinsic-prefix=1"),
)


def run(command: Sequence[str], *, where: str) -> None:
    """Run a compiler.

    Raises:
        BuildError: it fails; the message is its first error, and the cause holds all it said.
    """
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"exit status {error.returncode}"]
        first = next((line for line in lines if "error" in line or "undefined" in line), lines[0])
        raise BuildError(f"the compiler rejects it: {first}", where=where) from _Said(error.stderr)


class _Said(Exception):  # noqa: N818 - no error of its own, only what a compiler said
    """All that a compiler wrote."""
