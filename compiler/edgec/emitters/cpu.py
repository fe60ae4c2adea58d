"""A shared library for the CPU of Linux or macOS machines, linked by the C compiler."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax

from edgec.emitters.toolchain import c_compiler
from edgec.errors import BuildError

if TYPE_CHECKING:
    from pathlib import Path

LIBRARY = "model.so"


def emit(mod: tvm.IRModule, target: tvm.target.Target, out: Path) -> Path:
    """Generate machine code and link it.

    Args:
        mod: lowered to the virtual machine's instructions, kernels scheduled.
        target: with the triple and CPU to generate for.
        out: folder that receives the library.

    Returns:
        The library's path.
    """
    compiler = c_compiler()
    # TVM's common-subexpression pass can leave a use before its definition in host code.
    with tvm.transform.PassContext(opt_level=3, config={"tirx.disable_cse_tir": True}):
        executable = relax.build(mod, target, relax_pipeline=None)
    library = out / LIBRARY
    try:
        executable.export_library(
            str(library), fcompile=_linker(compiler), workspace_dir=str(_scratch(out))
        )
    finally:
        shutil.rmtree(_scratch(out), ignore_errors=True)
    return library


def _scratch(out: Path) -> Path:
    folder = out / "objects"
    folder.mkdir(exist_ok=True)
    return folder


def _linker(compiler: str) -> Any:
    def link(output: str, objects: list[str], options: list[str] | None = None) -> None:
        # Without a build id and with debug sections dropped, nothing in the file depends on
        # where it was linked.
        command = [
            compiler,
            "-shared",
            "-fPIC",
            "-O2",
            "-s",
            "-Wl,--build-id=none",
            "-o",
            output,
            *sorted(objects),
            *(options or []),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(
                f"linking failed: {done.stderr.strip()[-2000:]}",
                where=compiler,
                remedy="check that the C compiler works, or name another one in CC",
            )

    link.output_format = "so"  # type: ignore[attr-defined]
    return link
