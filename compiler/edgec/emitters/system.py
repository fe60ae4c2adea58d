"""The system form of a library: objects with a symbol prefix, for linking into an app.

A tar for MLC's packager, and the same objects as a static archive for everyone else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.libraries.ar import build_archive
from edgec.libraries.tarball import write_tar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgec.libraries.ar import Flavour
    from edgec.libraries.members import Member

TAR, ARCHIVE = "model.tar", "libmodel.a"


def emit_system(members: Sequence[Member], out: Path, flavour: Flavour) -> list[Path]:
    """Write both files; the tar comes first.

    Args:
        members: object files.
        out: folder that receives the files.
        flavour: of the archive: ``"gnu"`` for Linux and Android, ``"darwin"`` for iOS.
    """
    (out / TAR).write_bytes(write_tar(members))
    (out / ARCHIVE).write_bytes(build_archive(members, flavour))
    return [out / TAR, out / ARCHIVE]
