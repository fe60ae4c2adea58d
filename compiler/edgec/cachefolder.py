"""Where edgec keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path

TOOLS = "tools"
"""The folder in the cache for compiled helper programs."""


def cache_root() -> Path:
    """The cache's folder: ``EDGEC_CACHE`` if set and not empty, else the user's cache folder."""
    named = os.environ.get("EDGEC_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs  # noqa: PLC0415 - not needed when the folder is named

    return Path(platformdirs.user_cache_dir("edgec"))
