"""The files of a library for Linux or Android."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.emitters.linking import SharedLibrary, link_shared
from edgec.emitters.machine_code import check_undefined, generate
from edgec.emitters.spec import Emitted
from edgec.emitters.system import emit_system
from edgec.emitters.toolchain import linker_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import tvm

    from edgec.emitters.spec import LibrarySpec
    from edgec.libraries.blob import Blob
    from edgec.progress import Progress

SHARED = "model.so"


def emit_elf(
    mod: tvm.IRModule,
    target: tvm.target.Target,
    out: Path,
    spec: LibrarySpec,
    progress: Progress,
    *,
    platform: str,
    edit: Callable[[Blob], Blob] | None = None,
) -> Emitted:
    """Generate code once and write all forms of the library.

    Args:
        mod: lowered to the virtual machine's instructions, kernels scheduled.
        target: with the triple and CPU to generate for.
        out: folder that receives the files.
        spec: which files.
        progress: is told of the steps.
        platform: the profile's, which has a say in who links.
        edit: what replaces the blob before it becomes an object.

    Raises:
        BuildError: linking failed, or the code can't run on devices.
        ToolchainError: there is no linker.
    """
    triple = host_triple(target)
    # Asked for first: generating code takes long.
    linker = linker_for(platform, triple) if "shared" in spec.forms else None
    prefix = spec.prefix if "system" in spec.forms else None
    members = generate(mod, target, prefix=prefix, edit=edit)
    check_undefined(members)
    files = []
    if linker:
        progress.note("linking")
        library = SharedLibrary(triple, f"lib{spec.model_lib}.so", spec.page_bytes, prefix or "")
        link_shared(members, library, linker, out / SHARED)
        files.append(out / SHARED)
    if prefix:
        files += emit_system(members, out, "gnu")
    return Emitted(files[0], tuple(files))


def host_triple(target: tvm.target.Target) -> str:
    """LLVM's triple of the CPU that runs the host code."""
    return str((target.host or target).attrs["mtriple"])
