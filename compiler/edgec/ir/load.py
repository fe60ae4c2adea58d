"""Load TVM without torch.

TVM's foreign-function library imports torch whenever it is installed, which makes ``import tvm``
four times as slow and adds 200 MB to every process that compiles or runs a model. Nothing here
hands torch tensors to TVM, so torch is hidden while TVM loads and can be imported afterwards.

Processes that only run models don't load TVM's compiler: see :mod:`edgec.runtime.tvm_runtime`.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def load_tvm() -> None:
    """Import TVM; call it before the first import of a module that uses TVM."""
    if "tvm" in sys.modules:
        return
    with without_torch():
        import tvm  # noqa: F401, PLC0415
        from tvm import relax  # noqa: F401, PLC0415


@contextmanager
def without_torch() -> Iterator[None]:
    """A context in which torch can't be imported, unless it is already."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]
