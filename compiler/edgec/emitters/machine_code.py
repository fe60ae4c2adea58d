"""Machine code from scheduled IR: the object files that every form of a library is made of."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tvm
import tvm_ffi
from tvm import relax, s_tir, tirx

from edgec.emitters.c_library import C_FUNCTIONS, MATH_FUNCTIONS
from edgec.errors import BuildError
from edgec.libraries.blob import Blob
from edgec.libraries.members import Member
from edgec.libraries.objects import parse_image
from edgec.scheduling.kernels import HAND_WRITTEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_PACK = "codegen.codegen_blob"
_PREFIX, _SYMBOL = "system_lib_prefix", "global_symbol"
# Of the engines' runtime: libtvm_ffi and libtvm_runtime.
_RUNTIME = ("TVMFFI", "TVMBackend")


def generate(
    mod: tvm.IRModule,
    target: tvm.target.Target,
    *,
    prefix: str | None = None,
    edit: Callable[[Blob], Blob] | None = None,
) -> tuple[Member, ...]:
    """Generate machine code.

    Args:
        mod: lowered to the virtual machine's instructions, kernels scheduled.
        target: with the triple and CPU to generate for.
        prefix: what the symbols begin with, for objects that register themselves when the program
            starts that they are linked into, where it may be empty; None for those of a file that
            is loaded by its path.
        edit: what replaces the blob before it becomes an object.

    Returns:
        The object files: host code ``lib0.o``, and ``<prefix>devc.o`` with the blob.
    """
    if prefix:
        mod = _prefixed(mod, prefix)
    # TVM's common-subexpression pass can leave a use before its definition in host code.
    config = {"tirx.disable_cse_tir": True}
    with (
        tvm.transform.PassContext(opt_level=3, config=config),
        _as_without_device(target),
        _as_large_as_written(target),
        _edited(edit),
        tempfile.TemporaryDirectory(prefix="edgec-code-") as folder,
    ):
        # A prefix says so by itself. TVM can't read one of less than eight letters back.
        executable = relax.build(
            mod, target, relax_pipeline=None, system_lib=True if prefix == "" else None
        )
        files: list[str] = []
        executable.export_library(
            str(Path(folder) / "library"), fcompile=_collector(files), workspace_dir=folder
        )
        return tuple(Member(Path(file).name, Path(file).read_bytes()) for file in files)


def _prefixed(mod: tvm.IRModule, prefix: str) -> tvm.IRModule:
    """Let the symbols of kernels begin with a prefix.

    Bytecode goes on calling them by their names, to which the runtime adds the prefix of the
    library. (``AttachGlobalSymbol`` would name the functions themselves anew. For this it walks all
    through the kernels, and fails at one that asks ``tvm_thread_invariant``.)
    """
    named = mod.with_attr(_PREFIX, prefix)
    for var, function in mod.functions_items():
        if isinstance(function, tirx.PrimFunc):
            symbol = prefix + str(function.attrs[_SYMBOL])
            named.update_func(var, function.with_attr(_SYMBOL, symbol))
    return named


def _collector(files: list[str]) -> Any:
    """In the place of a linker: remembers what it is given."""

    def collect(_output: str, objects: list[str], **_options: Any) -> None:
        files.extend(objects)

    collect.output_format = "o"  # type: ignore[attr-defined]
    return collect


@contextmanager
def _as_without_device(target: tvm.target.Target) -> Iterator[None]:
    """Hide the runtime of the target's device, if this machine has one.

    With it TVM would compile the kernels for the device that is here.
    """
    name = f"ffi.Module.create.{target.kind.name}"
    create = tvm.get_global_func(name, allow_missing=True)
    if create is None:
        yield
        return
    tvm_ffi.registry.remove_global_func(name)
    try:
        yield
    finally:
        tvm_ffi.register_global_func(name, create)


@contextmanager
def _as_large_as_written(target: tvm.target.Target) -> Iterator[None]:
    """Leave the buffers alone that hand-written kernels for CPUs allocate: all of them are used.

    To find that out for attention alone takes the pass that makes buffers smaller as long as all
    else that code generation does.
    """
    shrink = s_tir.transform.CompactBufferAllocation
    if target.kind.name != "llvm":
        yield
        return

    def shrink_others(*options: Any) -> Any:
        def run(mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
            kept = {v: f for v, f in mod.functions_items() if f.attrs and HAND_WRITTEN in f.attrs}
            others = {v: f for v, f in mod.functions_items() if v not in kept}
            shrunk = shrink(*options)(tvm.IRModule(others, attrs=mod.attrs))
            return tvm.IRModule({**dict(shrunk.functions_items()), **kept}, attrs=mod.attrs)

        return tvm.transform.module_pass(run, opt_level=0, name="CompactOtherBuffers")

    s_tir.transform.CompactBufferAllocation = shrink_others
    try:
        yield
    finally:
        s_tir.transform.CompactBufferAllocation = shrink


@contextmanager
def _edited(edit: Callable[[Blob], Blob] | None) -> Iterator[None]:
    """Have ``edit`` change the blob of what is exported."""
    if edit is None:
        yield
        return
    pack = tvm.get_global_func(_PACK)

    def edit_and_pack(blob: Any, *options: Any) -> Any:
        return pack(edit(Blob.parse(bytes(blob))).to_bytes(), *options)

    tvm_ffi.register_global_func(_PACK, edit_and_pack, override=True)
    try:
        yield
    finally:
        tvm_ffi.register_global_func(_PACK, pack, override=True)


def check_undefined(members: Sequence[Member]) -> None:
    """Refuse code that no device could link.

    Raises:
        BuildError: it calls functions that devices don't have.
    """
    images = [parse_image(data, name) for name, data in members]
    defined = {name for image in images for name in image.exported}
    needed = {name for image in images for name in image.undefined} - defined
    foreign = sorted(
        name for name in needed - MATH_FUNCTIONS - C_FUNCTIONS if not name.startswith(_RUNTIME)
    )
    if foreign:
        raise BuildError(
            f"kernels call {', '.join(foreign)}, which engines and C libraries don't have",
            where="code generation",
            remedy="report this with the recipe and the target",
        )
