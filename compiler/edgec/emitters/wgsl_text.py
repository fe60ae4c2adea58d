"""Kernels in WGSL as browsers can trust them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edgec.libraries.blob import BlobModule
from edgec.libraries.device import DeviceModule

if TYPE_CHECKING:
    from edgec.libraries.blob import Blob

_KIND = "webgpu"
# A grid of more than 65,535 work-groups in x is folded into z by the runtime, which rounds up. TVM
# has those past the end leave, but for the first of them: with several rows in y it would write the
# beginning of the next row, in a race with the work-group whose row that is.
_OFF_BY_ONE = b" > podArgs.packGridDimX)"
_RIGHT = b" >= podArgs.packGridDimX)"


def with_exact_grids(blob: Blob) -> Blob:
    """A blob whose kernels leave out every work-group past the end of a folded grid."""
    for module in blob.of_kind(_KIND):
        assert module.data is not None, "only host code has none"
        parsed = DeviceModule.parse(_KIND, module.data)
        code = {name: text.replace(_OFF_BY_ONE, _RIGHT) for name, text in parsed.code.items()}
        blob = blob.replace(module, BlobModule(_KIND, replace(parsed, code=code).to_bytes()))
    return blob
