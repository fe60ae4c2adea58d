"""Does the installed runtime fit the library? Asked before either is loaded."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

from edgec.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_RUNTIME = "apache-tvm"


def check_runtime(library: Path, runtime: Mapping[str, Any]) -> None:
    """Refuse to load a library that was compiled by another version of TVM than is installed.

    TVM gives no promise that its virtual machine reads what another version wrote.

    Args:
        library: for messages.
        runtime: the section ``runtime`` of the artifact's manifest.

    Raises:
        ToolchainError: TVM is missing, or has another version.
    """
    wanted = runtime["tvm"]
    try:
        installed = metadata.version(_RUNTIME)
    except metadata.PackageNotFoundError:
        raise ToolchainError(
            f"the library needs {_RUNTIME} {wanted}, and none is installed",
            where=str(library),
            remedy=f"run: pip install {_RUNTIME}=={wanted}",
        ) from None
    if installed != wanted:
        raise ToolchainError(
            f"the library was compiled by {_RUNTIME} {wanted}, and {installed} is installed",
            where=str(library),
            remedy=f"build it again, or run: pip install {_RUNTIME}=={wanted}",
        )
