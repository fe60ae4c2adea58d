"""Put an artifact together from the outputs of the stages, and write its manifest.

The folder is filled beside its place and then takes it, so that a reader finds the old artifact
or the new one. Nothing in it depends on when or where it was built.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.artifacts.interface import INTERFACE
from edgec.artifacts.layout import (
    CHAT_CONFIG,
    GOLDEN,
    LIBRARY_FOLDER,
    MANIFEST,
    MODEL_FOLDER,
    REFERENCE_KERNELS,
    REPORT,
)
from edgec.artifacts.web_program import MODEL_MANIFEST
from edgec.errors import BuildError
from edgec.files import pretty_json, replace_directory, sha256_file

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class Parts:
    """What goes into an artifact.

    Attributes:
        libraries: the model library in all its forms, and what belongs to it.
        weights: folder with ``tensor-cache.json`` and its shards.
        tokenizer: files that lie beside the weights.
        chat_config: content of ``mlc-chat-config.json``; None for functions of tensors.
        report: content of ``report.json``.
        golden: golden inputs and outputs, if the library was run.
        reference_kernels: what each kernel computes, if a stand-in can check them alone.
        model_manifest: content of ``mlc-model-manifest.json``, for libraries that WebLLM runs.
        interface: content of ``edgec-model.json``, for generic models.
    """

    libraries: tuple[Path, ...]
    weights: Path
    tokenizer: tuple[Path, ...]
    chat_config: dict[str, Any] | None
    report: dict[str, Any]
    golden: Path | None
    reference_kernels: Path | None = None
    model_manifest: dict[str, Any] | None = None
    interface: dict[str, Any] | None = None


def _read_all(files: Sequence[Path]) -> dict[Path, str]:
    return {path: sha256_file(path) for path in files}


def assemble(
    place: Path,
    parts: Parts,
    make_manifest: Callable[[Mapping[str, dict[str, Any]]], dict[str, Any]],
    digests: Callable[[Sequence[Path]], Mapping[Path, str]] = _read_all,
) -> dict[str, Any]:
    """Write the artifact to ``place``.

    Args:
        place: the artifact's folder; an artifact that is there is replaced.
        parts: what to put in.
        make_manifest: called with size and sha256 of every file by its path in the artifact.
        digests: gives the sha256 of files, and may remember it.

    Returns:
        The manifest.

    Raises:
        BuildError: the folder can't be written, or the disk is full.
    """
    if place.is_dir() and any(place.iterdir()) and not (place / MANIFEST).is_file():
        raise BuildError(
            "the folder holds files that aren't an artifact of edgec",
            where=str(place),
            remedy="name another folder with --out, or empty this one",
        )
    temporary: Path | None = None
    absent = [folder for folder in place.parents if not folder.exists()]
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        sweep(place)
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(place), dir=place.parent))
        temporary.chmod(0o755)
        _fill(temporary, parts)
        manifest = make_manifest(_described(temporary, digests))
        (temporary / MANIFEST).write_text(pretty_json(manifest))
        replace_directory(temporary, place)
    except OSError as error:
        raise BuildError(
            f"the artifact can't be written: {error.strerror or error}",
            # Of a copy that failed, the first name is the source, which is not to blame.
            where=str(place if error.filename2 else error.filename or place),
            remedy="check permissions and free space, or name another folder with --out",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            if temporary is not None and temporary.exists():
                shutil.rmtree(temporary)
            for folder in absent:  # a failure leaves no empty folders behind
                folder.rmdir()
    return manifest


def sweep(place: Path) -> None:
    """Remove what a killed build left beside an artifact; the caller holds the artifact's lock."""
    for left in place.parent.glob(f"{_prefix(place)}*"):
        shutil.rmtree(left, ignore_errors=True)


def _prefix(place: Path) -> str:
    return f".{place.name}.tmp-"


def _fill(folder: Path, parts: Parts) -> None:
    library = folder / LIBRARY_FOLDER
    model = folder / MODEL_FOLDER
    library.mkdir()
    model.mkdir()
    for file in parts.libraries:
        shutil.copyfile(file, library / file.name)
        (library / file.name).chmod(0o755 if file.suffix == ".so" else 0o644)
    for file in sorted(parts.weights.iterdir()):
        shutil.copyfile(file, model / file.name)
    for file in parts.tokenizer:
        shutil.copyfile(file, model / file.name)
    if parts.chat_config is not None:
        (model / CHAT_CONFIG).write_text(pretty_json(parts.chat_config))
    if parts.interface is not None:
        (folder / INTERFACE).write_text(pretty_json(parts.interface))
    if parts.model_manifest is not None:
        (model / MODEL_MANIFEST).write_text(pretty_json(parts.model_manifest))
    (folder / REPORT).write_text(pretty_json(parts.report))
    if parts.golden is not None:
        shutil.copyfile(parts.golden, folder / GOLDEN)
    if parts.reference_kernels is not None:
        shutil.copyfile(parts.reference_kernels, folder / REFERENCE_KERNELS)


def _described(
    folder: Path, digests: Callable[[Sequence[Path]], Mapping[Path, str]]
) -> dict[str, dict[str, Any]]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    found = digests(files)
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": found[path]}
        for path in files
    }
