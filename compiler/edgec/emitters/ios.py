"""A library for iPhones and iPads: objects to link into an app, with kernels for Metal.

A Mac is not needed. On one with Xcode the kernels become a metallib; elsewhere they stay text,
which the phone compiles when it loads the library.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgec.emitters.elf import host_triple
from edgec.emitters.kernel_code import text_file, with_machine_code
from edgec.emitters.machine_code import check_undefined, generate
from edgec.emitters.spec import Emitted
from edgec.emitters.system import emit_system
from edgec.emitters.toolchain import metal_compiler
from edgec.errors import BuildError, UsageError
from edgec.libraries.macho import MachO

if TYPE_CHECKING:
    from collections.abc import Sequence

    import tvm

    from edgec.emitters.spec import LibrarySpec
    from edgec.libraries.device import DeviceModule
    from edgec.libraries.members import Member
    from edgec.progress import Progress

_KIND = "metal"
_TRIPLE = re.compile(r"arm64-apple-ios(\d+(?:\.\d+)*)")
_TIME_LIMIT = 600  # seconds, for one kernel


def emit(
    mod: tvm.IRModule,
    target: tvm.target.Target,
    out: Path,
    spec: LibrarySpec,
    progress: Progress,
) -> Emitted:
    """Write the library's files into ``out``, and where there is a metallib its text too.

    Args:
        mod: lowered to the virtual machine's instructions, kernels scheduled.
        target: with the triple and CPU to generate for.
        out: folder that receives the files.
        spec: which files; only the system form can be made.
        progress: is told of the steps.

    Raises:
        UsageError: the profile asks for another form, or for no version of iOS.
        BuildError: the code can't run on devices.
    """
    triple = host_triple(target)
    found = _TRIPLE.fullmatch(triple)
    if found is None:
        raise UsageError(
            f"{triple!r} names no version of iOS to generate code for",
            where="tvm.host.mtriple",
            remedy="write arm64-apple-ios16.0 in the target's profile",
        )
    if spec.forms != ("system",):
        raise UsageError(
            f"an app on iOS can't load a library of the form {spec.forms[0]} by its path",
            where="library.forms",
            remedy="write [system] in the target's profile",
        )
    minimum = found[1]
    compiler = metal_compiler()
    text = text_file(out, _KIND)
    edit = None
    if compiler:

        def compiled(module: DeviceModule) -> DeviceModule:
            progress.note("compiling the kernels with Xcode")
            code = {
                name: metallib(source, compiler, minimum) for name, source in module.code.items()
            }
            return replace(module, format="metallib", code=code)

        edit = partial(with_machine_code, kind=_KIND, compile_module=compiled, text=text)
    members = generate(mod, target, prefix=spec.prefix, edit=edit)
    check_undefined(members)
    _check(members, minimum)
    files = emit_system(members, out, "darwin")
    if text.exists():
        files.append(text)
    return Emitted(files[0], tuple(files))


def metallib(source: bytes, compiler: Sequence[str], minimum: str) -> bytes:
    """One kernel's text as what a phone loads without compiling it.

    Args:
        source: in Metal's language.
        compiler: the command of Metal's compiler.
        minimum: version of iOS that it shall run on: ``"16.0"``.

    Raises:
        BuildError: it doesn't compile.
    """
    with tempfile.TemporaryDirectory(prefix="edgec-metal-") as folder:
        path = Path(folder)
        (path / "kernel.metal").write_bytes(source)
        command = [*compiler, "-O3", f"-mios-version-min={minimum}", "-o", "kernel.metallib"]
        try:
            done = subprocess.run(
                [*command, "kernel.metal"],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=_TIME_LIMIT,
            )
            problem = done.stderr.strip()[-2000:] if done.returncode else ""
            failed = bool(done.returncode)
        except (OSError, subprocess.TimeoutExpired) as error:
            problem, failed = str(error), True
        if failed:
            raise BuildError(
                f"a kernel does not compile: {problem}",
                where=" ".join(compiler),
                remedy="check that Xcode works (run: xcrun -sdk iphoneos metal --version)",
            )
        return (path / "kernel.metallib").read_bytes()


def _check(members: Sequence[Member], minimum: str) -> None:
    """Is the code for iOS, from the wanted version on?"""
    for name, data in members:
        image = MachO.parse(data, name)
        found = (image.machine, image.platform, image.minimum_version)
        if found != ("aarch64", "ios", minimum):
            raise BuildError(
                f"the code is for {' '.join(found)}, wanted is aarch64 ios {minimum}",
                where=name,
                remedy="check tvm.host.mtriple in the target's profile",
            )
