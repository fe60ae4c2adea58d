"""A library for Android, with kernels for its GPU or for its CPU.

Neither the NDK nor a phone is needed. Where ``TVM_NDK_CC`` names the compiler of an NDK, that links.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.emitters.elf import emit_elf
from edgec.emitters.opencl_text import without_declarations

if TYPE_CHECKING:
    from pathlib import Path

    import tvm

    from edgec.emitters.spec import Emitted, LibrarySpec
    from edgec.progress import Progress


def emit(
    mod: tvm.IRModule,
    target: tvm.target.Target,
    out: Path,
    spec: LibrarySpec,
    progress: Progress,
) -> Emitted:
    """Write the library's files into ``out``; see :func:`~edgec.emitters.elf.emit_elf`."""
    return emit_elf(mod, target, out, spec, progress, platform="android", edit=without_declarations)
