"""Is the machine code of a library for GPUs what its kernels' text compiles to?

Stand-ins execute the text. Only what compiles to the very bytes that ship says something of these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.emitters.cuda_record import NAME, read_text
from edgec.errors import ToolchainError, VerificationError
from edgec.libraries.open import open_library

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.progress import Progress


def has_machine_code(path: Path) -> bool:
    """Whether a library comes with the record of machine code for GPUs."""
    return path.with_name(NAME).is_file()


def prove_machine_code(path: Path, progress: Progress) -> dict[str, Any]:
    """Compile the text that lies beside a library again.

    Args:
        path: of the library.
        progress: is told of every architecture.

    Returns:
        ``architectures``; ``parts``: versions of the toolkit that made the machine code;
        ``proven``, and if it isn't, because that toolkit isn't here, the ``reason``.

    Raises:
        VerificationError: other machine code comes out, or a file is damaged or missing.
    """
    shipped = open_library(path).device
    if shipped is None:
        raise VerificationError(
            "the library has no kernels, and there is a record of their machine code",
            where=str(path),
            remedy="build the artifact again",
        )
    text, record = read_text(path)
    facts = {"architectures": list(record.architectures), "parts": dict(record.parts)}
    try:
        record.prove(text, shipped, str(path), progress)
    except ToolchainError as error:
        return {**facts, "proven": False, "reason": str(error)}
    return {**facts, "proven": True}
