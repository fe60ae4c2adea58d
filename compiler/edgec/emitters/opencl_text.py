"""OpenCL text without what TVM repeats in it.

Before every kernel TVM declares all kernels of the library. Nothing calls them, and a device compiles
each kernel's part of the text alone: with forty kernels the declarations are two thirds of what the
library holds and of what a phone has to read when an app starts.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from edgec.libraries.blob import BlobModule
from edgec.libraries.device import DeviceModule

if TYPE_CHECKING:
    from edgec.libraries.blob import Blob

_KIND = "opencl"
_DECLARATION = re.compile(rb"^__kernel void \w+\([^;{}]*\);\n", re.MULTILINE)


def without_declarations(blob: Blob) -> Blob:
    """A blob whose OpenCL text defines kernels and doesn't declare them first."""
    for module in blob.of_kind(_KIND):
        assert module.data is not None, "only host code has none"
        device = DeviceModule.parse(_KIND, module.data)
        code = {key: _DECLARATION.sub(b"", text) for key, text in device.code.items()}
        shorter = replace(device, code=code)
        blob = blob.replace(module, BlobModule(_KIND, shorter.to_bytes()))
    return blob
