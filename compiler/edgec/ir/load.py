"""Load TVM without torch, and without its compiler where nothing will be compiled.

TVM's foreign-function library imports torch whenever it is installed, which makes ``import tvm``
four times as slow and adds 200 MB to every process that compiles or runs a model. Nothing here
hands torch tensors to TVM, so torch is hidden while TVM loads and can be imported afterwards.

TVM's compiler is another 100 MB and most of the time that is left. A process that only runs models
doesn't need it, but once TVM was loaded without it, nothing in that process can be compiled any more.
So only who knows that of a whole process says so, with :func:`spare_compiler`: the command line does
for ``edgec run`` and ``edgec bench``.
"""

from __future__ import annotations

import os
import sys

_RUNTIME_ONLY = "TVM_USE_RUNTIME_LIB"
"""TVM reads it when it is imported: at 1 it loads no compiler."""

_spared = [False]


def spare_compiler(spared: bool = True) -> None:
    """Say that this process compiles nothing, before TVM is loaded for the first time.

    Args:
        spared: whether :func:`load_tvm` may leave the compiler out.
    """
    _spared[0] = spared


def load_tvm() -> None:
    """Import TVM; call it before the first import of a module that uses TVM."""
    if "tvm" in sys.modules:
        return
    before = os.environ.get(_RUNTIME_ONLY)
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        if _spared[0]:
            os.environ[_RUNTIME_ONLY] = "1"
        import tvm  # noqa: F401, PLC0415

        if not _spared[0]:
            from tvm import relax  # noqa: F401, PLC0415
    finally:
        if _spared[0] and before is None:
            del os.environ[_RUNTIME_ONLY]  # processes that this one starts may compile
        if hide:
            del sys.modules["torch"]
