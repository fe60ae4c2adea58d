"""The C compiler that links libraries; found without loading TVM."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import lru_cache

from edgec.errors import ToolchainError


def c_compiler() -> str:
    """Path of the C compiler: the one named in ``CC``, else ``cc``, ``gcc`` or ``clang``.

    Raises:
        ToolchainError: there is none.
    """
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        path = shutil.which(name) if name else None
        if path:
            return path
    raise ToolchainError(
        "no C compiler was found to link the library",
        where="cc",
        remedy="install one (on Debian or Ubuntu: apt-get install gcc libc6-dev), or name it in CC",
    )


@lru_cache(maxsize=1)
def c_compiler_version() -> str:
    """First line of the compiler's version: part of what a library's bytes depend on."""
    done = subprocess.run(
        [c_compiler(), "--version"], capture_output=True, text=True, check=False, timeout=60
    )
    return done.stdout.splitlines()[0] if done.stdout else "unknown"
