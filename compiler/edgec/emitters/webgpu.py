"""A library for browsers: a WebAssembly module with TVM's runtime and kernels in WGSL."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgec.emitters.elf import host_triple
from edgec.emitters.machine_code import generate
from edgec.emitters.spec import Emitted
from edgec.emitters.web.runtime import web_runtime
from edgec.emitters.wgsl_text import with_exact_grids
from edgec.errors import UsageError

if TYPE_CHECKING:
    import tvm

    from edgec.emitters.spec import LibrarySpec
    from edgec.progress import Progress

FILE = "model.wasm"


def emit(
    mod: tvm.IRModule,
    target: tvm.target.Target,
    out: Path,
    spec: LibrarySpec,
    progress: Progress,
) -> Emitted:
    """Write ``model.wasm`` into ``out``.

    Args:
        mod: lowered to the virtual machine's instructions, kernels scheduled.
        target: with the triple to generate host code for.
        out: folder that receives the file.
        spec: which files; only the wasm form can be made.
        progress: is told of the steps.

    Raises:
        UsageError: the profile asks for another form, or for another processor.
        ToolchainError: the compiler of the runtime is missing.
        BuildError: the code can't run in browsers.
    """
    triple = host_triple(target)
    if not triple.startswith("wasm32"):
        raise UsageError(
            f"{triple!r} is no WebAssembly to generate code for",
            where="tvm.host.mtriple",
            remedy="write wasm32-unknown-unknown-wasm in the target's profile",
        )
    if spec.forms != ("wasm",):
        raise UsageError(
            f"a browser can't load a library of the form {spec.forms[0]}",
            where="library.forms",
            remedy="write [wasm] in the target's profile",
        )
    runtime = web_runtime(progress.note)
    # WebLLM asks for the one library of the module: its symbols have no prefix.
    members = generate(mod, target, prefix="", edit=with_exact_grids)
    with tempfile.TemporaryDirectory(prefix="edgec-wasm-") as folder:
        objects = []
        for name, data in members:
            objects.append(Path(folder) / name)
            objects[-1].write_bytes(data)
        progress.note("linking with the web runtime")
        runtime.link(objects, out / FILE)
    return Emitted(out / FILE, (out / FILE,))
