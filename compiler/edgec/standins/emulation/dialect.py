"""What a kernel language has to give, so that its text can run on this CPU: one file each.

The file is found by the device module's kind: ``opencl.py``, ``metal.py``, ``cuda.py``.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from edgec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.libraries.device import DeviceModule

RUNTIME = Path(__file__).parent / "runtime"


class Dialect(Protocol):
    """What such a file offers."""

    SUBGROUP_WIDTH: int
    """Work-items of a warp or simdgroup: 1 to 64."""

    def translate(self, device: DeviceModule, name: str) -> str:
        """The text of one translation unit, which defines the kernel ``name`` and no other.

        Raises:
            VerificationError: the module doesn't hold the kernel as text.
        """

    def sources(self) -> Sequence[Path]:
        """Files and folders that :meth:`build` reads besides the text: part of its key."""

    def build(self, text: str, name: str, target: Path, *, checked: bool) -> None:
        """Compile a translated text to the shared object ``target``, as ``emu.h`` says.

        Raises:
            BuildError: the compiler rejects the text; the message names kernel and line.
            ToolchainError: there is no compiler.
        """


def find_dialect(kind: str) -> Dialect:
    """The dialect of this name, such as ``"opencl"``.

    Raises:
        UsageError: kernels of this kind can't be executed here.
    """
    module = f"{__package__}.{kind}"
    if importlib.util.find_spec(module):
        found = importlib.import_module(module)
        if hasattr(found, "SUBGROUP_WIDTH"):
            return cast("Dialect", found)
    raise UsageError(f"kernels of the kind {kind!r} can't be executed on this CPU", where=kind)
