"""A library for machines with an NVIDIA GPU: kernels as machine code for the GPUs of the profile.

The host code is for an x86-64 or an Arm CPU. A profile that names no GPU gets the kernels' text,
which engines compile when they load the library.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from edgec.emitters.cuda_binary import compile_cuda
from edgec.emitters.cuda_record import NAME, CudaRecord
from edgec.emitters.cuda_toolkit import find_toolkit
from edgec.emitters.elf import emit_elf
from edgec.emitters.kernel_code import text_file, with_machine_code

if TYPE_CHECKING:
    from pathlib import Path

    import tvm

    from edgec.emitters.spec import Emitted, LibrarySpec
    from edgec.libraries.device import DeviceModule
    from edgec.progress import Progress

_KIND = "cuda"


def emit(
    mod: tvm.IRModule,
    target: tvm.target.Target,
    out: Path,
    spec: LibrarySpec,
    progress: Progress,
) -> Emitted:
    """Write the library's files into ``out``; see :func:`~edgec.emitters.elf.emit_elf`.

    Beside machine code lie the kernels' text, ``kernels.cuda``, and the record that ties the two
    together, ``kernels.cuda.json``.

    Raises:
        ToolchainError: the CUDA toolkit or the linker is missing.
        BuildError: the kernels don't compile, or linking failed.
    """
    if not spec.cuda_architectures:
        return emit_elf(mod, target, out, spec, progress, platform=_KIND)
    # Asked for first: generating code takes long.
    find_toolkit(spec.cuda_toolkit)

    text, record = text_file(out, _KIND), out / NAME

    def compiled(module: DeviceModule) -> DeviceModule:
        binary = compile_cuda(
            module.code[""].decode(), spec.cuda_architectures, spec.cuda_toolkit, progress
        )
        record.write_text(CudaRecord.of(module.code[""], binary).to_text())
        return replace(module, format=binary.format, code={"": binary.code})

    edit = partial(with_machine_code, kind=_KIND, compile_module=compiled, text=text)
    emitted = emit_elf(mod, target, out, spec, progress, platform=_KIND, edit=edit)
    return replace(emitted, files=(*emitted.files, text, record))
