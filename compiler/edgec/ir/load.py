"""Load TVM without torch.

TVM's foreign-function library imports torch whenever it is installed, which makes ``import tvm``
four times as slow and adds 200 MB to every process that compiles or runs a model. Nothing here
hands torch tensors to TVM, so torch is hidden while TVM loads and can be imported afterwards.
"""

from __future__ import annotations

import sys


def load_tvm() -> None:
    """Import TVM; call it before the first import of a module that uses TVM."""
    if "tvm" in sys.modules:
        return
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import tvm  # noqa: F401, PLC0415
        from tvm import relax  # noqa: F401, PLC0415
    finally:
        if hide:
            del sys.modules["torch"]
