"""Kernels as machine code in the place of their text, and the text kept beside the library.

TVM writes the kernels' text into the blob, and leaves compiling it to the device. What verifies the
library later needs the text, which no one can get back from machine code: it stays in a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.libraries.blob import BlobModule
from edgec.libraries.device import DeviceModule

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgec.libraries.blob import Blob


def with_machine_code(
    blob: Blob,
    kind: str,
    compile_module: Callable[[DeviceModule], DeviceModule],
    text: Path,
) -> Blob:
    """A blob whose kernels are machine code.

    Args:
        blob: with the kernels' text.
        kind: of the device module: ``"cuda"``, ``"metal"``.
        compile_module: gives the module in which text has become machine code.
        text: receives the module with the text, as :meth:`DeviceModule.parse` reads it.
    """
    for module in blob.of_kind(kind):
        assert module.data is not None, "only host code has none"
        compiled = compile_module(DeviceModule.parse(kind, module.data))
        text.write_bytes(module.data)
        blob = blob.replace(module, BlobModule(kind, compiled.to_bytes()))
    return blob


def text_file(out: Path, kind: str) -> Path:
    """Where the text of a library's kernels is: ``kernels.cuda`` for ``"cuda"``."""
    return out / f"kernels.{kind}"
