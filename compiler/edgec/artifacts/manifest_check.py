"""Refuse a manifest that was edited or damaged, before anything relies on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FIELDS: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "target": (str,),
    "library": (str,),
    "standin": (str,),
    "build.digest": (str,),
    "recipe": (dict,),
    "model.family": (str,),
    "model.parameters": (int,),
    "quantization.scheme": (str,),
    "quantization.method": (str,),
    "quantization.bits_per_weight": (int, float),
    "toolchain.edgec": (str,),
    "runtime.architecture": (str,),
    "runtime.cpu_features": (list,),
    "runtime.tvm": (str,),
    "memory.context_length": (int,),
    "memory.weights_bytes": (int,),
    "memory.kv_cache_bytes": (int,),
    "memory.total_bytes": (int,),
    "kernels.sources": (dict,),
    "files": (dict,),
}
"""What the readers of a manifest take for granted."""


def check_manifest(manifest: Mapping[str, Any], path: Path) -> None:
    """Check that the fields are there and of the right type.

    Args:
        manifest: its content.
        path: the file, for messages.

    Raises:
        VerificationError: a field is missing or of another type; the first one is named.
    """
    for field, types in _FIELDS.items():
        if not isinstance(_find(manifest, field), types):
            raise _damaged(path, field)
    for name, entry in manifest["files"].items():
        sizes = isinstance(entry, dict) and isinstance(entry.get("bytes"), int)
        if not sizes or not isinstance(entry.get("sha256"), str):
            raise _damaged(path, f"files.{name}")


def _find(manifest: Mapping[str, Any], field: str) -> Any:
    value: Any = manifest
    for key in field.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _damaged(path: Path, field: str) -> VerificationError:
    return VerificationError(
        f"the field {field} is missing or damaged",
        where=str(path),
        remedy="build it again with edgec build",
    )
