"""edgec's command line as users call it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def edgec(folder: Path, *args: str, code: int = 0, **environment: str) -> str:
    """What a command prints that is run in a folder; ``code`` is how it ends.

    The cache is that of the whole run: what another test has built isn't built again. Tests that look
    at what is done, or at what is left in it, name one of their own (``caches``).
    """
    done = subprocess.run(
        [sys.executable, "-m", "edgec", *args],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout
