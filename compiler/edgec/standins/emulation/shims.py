"""Compiles text in a GPU's dialect of C++ against headers that stand in for the vendor's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgec.standins.emulation.cxx import CHECKED, CODE, CXX, LINK, run
from edgec.standins.emulation.dialect import RUNTIME
from edgec.standins.toolbox import clang

if TYPE_CHECKING:
    from collections.abc import Sequence

# What such text may do though C++ leaves it undefined.
_DIALECT = (
    # Look at an array of one type as another: TVM reads four halves as a half4, floats as bits.
    "-fno-strict-aliasing",
    # Hand a variable that only some lanes have written to a shuffle. Others show a NaN.
    "-ftrivial-auto-var-init=pattern",
    # Wait in any function: a call isn't moved to where fewer work-items get, nor duplicated.
    *("-Xclang", "-fconvergent-functions"),
    # Never look at errno: a square root is one instruction.
    "-fno-math-errno",
)


def build(text: str, name: str, target: Path, headers: Path, *, checked: bool) -> None:
    """Compile a translation unit that ends with ``EMU_KERNEL(name)``.

    Args:
        text: C++20 that includes headers of ``headers``.
        name: the kernel, for messages.
        target: the shared object to write.
        headers: a folder.
        checked: let each load and store be checked.

    Raises:
        BuildError: the compiler rejects the text.
        ToolchainError: there is no compiler.
    """
    source = target.with_suffix(".cc")
    source.write_text(text)
    flags = [*CODE, *CXX, *_DIALECT, *(CHECKED if checked else ())]
    folders = [f"-I{headers}", f"-I{RUNTIME}"]
    command = [clang("c++"), *flags, *folders, str(source), "-o", str(target), *LINK]
    run(command, where=f"kernel {name}")


def sources(headers: Path) -> Sequence[Path]:
    """What :func:`build` reads besides the text: headers, and the flags in this file."""
    return [Path(__file__), RUNTIME / "emu.h", RUNTIME / "tile.h", headers]
