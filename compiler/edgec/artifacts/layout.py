"""Where things are in an artifact. ``artifacts/README.md`` tells the same to people."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "manifest.json"
REPORT = "report.json"
GOLDEN = "golden.safetensors"
LIBRARY_FOLDER = "lib"
MODEL_FOLDER = "model"
CHAT_CONFIG = "mlc-chat-config.json"
MANIFEST_SCHEMA = "edgec.manifest/v1"
REPORT_SCHEMA = "edgec.report/v1"
REFERENCE_KERNELS = "kernels.json"
"""What each kernel computes, as TVM's JSON graph of functions for a CPU."""
LIBRARY_FACTS = "library.json"
"""What the compile stage says of its library; its content goes into the manifest."""


def artifact_folder(root: Path, recipe: str, target: str) -> Path:
    """The folder of one artifact below the root of all of them."""
    return root / recipe / target


def library_name(recipe: str, scheme: str) -> str:
    """The name under which engines know a model's library, ``model_lib``: ``"tinypy_q4f16_1"``.

    With "_" at its end it is the prefix of the library's symbols, so it is made of what names in
    C are made of.
    """
    return re.sub(r"[^a-z0-9_]", "_", f"{recipe}_{scheme}".lower())
