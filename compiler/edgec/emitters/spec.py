"""What an emitter is told, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class LibrarySpec:
    """Which files a library shall be.

    Attributes:
        model_lib: the name under which engines know it: ``"tinypy_q4f16_1"``.
        forms: of ``"shared"``, ``"system"`` and ``"wasm"``; see the profile's ``library.forms``.
        page_bytes: alignment of the shared library's segments.
        cuda_architectures: GPUs to make machine code for: ``("sm_87",)``.
        cuda_toolkit: major version of the CUDA toolkit to make it with.
    """

    model_lib: str
    forms: tuple[str, ...]
    page_bytes: int
    cuda_architectures: tuple[str, ...] = ()
    cuda_toolkit: str | None = None

    @property
    def prefix(self) -> str:
        """What the symbols of the system form begin with."""
        return f"{self.model_lib}_"


@dataclass(frozen=True)
class Emitted:
    """The files of a library.

    Attributes:
        primary: the one that is loaded and verified.
        files: all of them, the primary one included.
    """

    primary: Path
    files: tuple[Path, ...]
