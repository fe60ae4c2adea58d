"""One model of a package: what its artifact gives, under the names that MLC's apps use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.artifacts.layout import CHAT_CONFIG, LIBRARY_FOLDER, MODEL_FOLDER
from edgec.errors import UsageError, VerificationError
from edgec.layouts.cache_index import INDEX, read_cache_index
from edgec.libraries.open import open_library

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgec.artifacts.artifact import Artifact
    from edgec.libraries.open import LibraryFile

OBJECTS = "model.tar"
MODULE = "model.wasm"
_BLOB = "__tvm_ffi__library_bin"
_HUB = "HF://"
_HUB_URL = "https://huggingface.co/"
_NAME = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class SourceFile:
    """A file of an artifact, as its manifest has it.

    Attributes:
        name: its name in the model's folder.
        source: where it is.
        nbytes: its size.
        sha256: of its bytes.
    """

    name: str
    source: Path
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class PackagedModel:
    """One model.

    Attributes:
        artifact: where it comes from.
        model_id: its name in the app and the name of its folder.
        model_lib: its library's name in the app: the prefix of its symbols without the last ``_``.
            A module for browsers has symbols without a prefix, and the name of the manifest.
        library: its objects, or a module for browsers.
        objects: the file that they are in.
        files: what the engine loads: the chat config, the tokenizer, the index of the weights and
            their shards, in this order.
        url: where the app can download these, as MLC's apps take it; None if nowhere.
        bundled: whether they are part of the package.
        by_manifest: whether the engine loads it by its model manifest, which WebLLM alone does.
    """

    artifact: Artifact
    model_id: str
    model_lib: str
    library: LibraryFile
    objects: SourceFile
    files: tuple[SourceFile, ...]
    url: str | None
    bundled: bool
    by_manifest: bool = False

    @property
    def estimated_vram_bytes(self) -> int:
        """What it takes at its context length, from the artifact's memory plan."""
        return int(self.artifact.manifest["memory"]["total_bytes"])

    @property
    def blob_symbol(self) -> str:
        """The C symbol by which an engine finds the library."""
        return f"{self.model_lib}_{_BLOB}"

    @property
    def store_name(self) -> str:
        """The library's name as stores take names: it begins with a letter."""
        return self.model_lib if self.model_lib[0].isalpha() else f"model_{self.model_lib}"

    @property
    def nbytes(self) -> int:
        """Bytes of all files that the engine loads."""
        return sum(file.nbytes for file in self.files)

    @property
    def web_url(self) -> str | None:
        """The URL with the hub's short form written out."""
        return self.url and self.url.replace(_HUB, _HUB_URL)

    @property
    def was_run(self) -> bool:
        """Whether the build ran the library and compared it with the original model."""
        return bool((self.artifact.report.get("verification") or {}).get("ran", True))


def model_id(artifact: Artifact) -> str:
    """The name of an artifact's model in apps: ``tinypy-q4f16_1``."""
    manifest = artifact.manifest
    return f"{manifest['name']}-{manifest['quantization']['scheme']}"


def read_model(
    artifact: Artifact, *, url: str | None, bundled: bool, by_manifest: bool = False
) -> PackagedModel:
    """Look at an artifact, of which every file is as its manifest says.

    Raises:
        UsageError: it isn't for phones or browsers, or is a generic model.
        VerificationError: its library or its index of weights is damaged, or another model's.
    """
    if artifact.interface is not None:
        raise UsageError(
            "it is a generic model, and the engines in these packages run models that chat",
            where=str(artifact.folder),
            remedy="link lib/ into the app yourself: docs/generic.md says what its function takes",
        )
    listed: Mapping[str, Mapping[str, object]] = artifact.manifest["files"]
    found = [name for name in (OBJECTS, MODULE) if f"{LIBRARY_FOLDER}/{name}" in listed]
    if not found:
        raise UsageError(
            f"it is for {artifact.manifest['target']} and has neither lib/{OBJECTS}, the objects that"
            f" are linked into an app, nor lib/{MODULE}, the module that a browser loads",
            where=str(artifact.folder),
            remedy=_remedy(artifact),
        )
    library = open_library(artifact.folder / LIBRARY_FOLDER / found[0])
    model_lib = _model_lib(artifact, library)
    return PackagedModel(
        artifact=artifact,
        model_id=model_id(artifact),
        model_lib=model_lib,
        library=library,
        objects=_file(artifact, LIBRARY_FOLDER, found[0]),
        files=_files(artifact),
        url=url,
        bundled=bundled,
        by_manifest=by_manifest,
    )


def _model_lib(artifact: Artifact, library: LibraryFile) -> str:
    """The library's name in apps."""
    named = artifact.manifest.get("model_lib")
    if library.form == "wasm":
        fits = named is not None and not library.prefix
        found = str(named)
    else:
        found = library.prefix.removesuffix("_")
        fits = named in {None, found}
    if not fits or not _NAME.fullmatch(found):
        raise VerificationError(
            f"its symbols begin with {library.prefix!r}, and the manifest names it {named!r}",
            where=str(library.path),
            remedy="build the artifact again with edgec build",
        )
    return found


def _files(artifact: Artifact) -> tuple[SourceFile, ...]:
    prefix = f"{MODEL_FOLDER}/"
    names = [
        name.removeprefix(prefix) for name in artifact.manifest["files"] if name.startswith(prefix)
    ]
    shards = [shard.file for shard in read_cache_index(artifact.model).records]
    missing = {CHAT_CONFIG, INDEX, *shards} - set(names)
    if missing:
        raise VerificationError(
            f"there is no {min(missing)}, without which engines don't load the model",
            where=str(artifact.model),
            remedy="build the artifact again with edgec build",
        )
    small = sorted(set(names) - set(shards), key=lambda name: (name != CHAT_CONFIG, name))
    return tuple(_file(artifact, MODEL_FOLDER, name) for name in [*small, *shards])


def _file(artifact: Artifact, folder: str, name: str) -> SourceFile:
    path = f"{folder}/{name}"
    entry = artifact.manifest["files"][path]
    return SourceFile(name, artifact.folder / path, entry["bytes"], entry["sha256"])


def _remedy(artifact: Artifact) -> str:
    """The recipe's artifacts that would do, or how to get one."""
    fitting = sorted(
        path.parent.parent
        for name in (OBJECTS, MODULE)
        for path in artifact.folder.parent.glob(f"*/{LIBRARY_FOLDER}/{name}")
    )
    if fitting:
        return f"name {fitting[0]}"
    name = artifact.manifest["name"]
    return (
        f"build it for a phone or a browser, as in edgec build {name} -t android-adreno, -t ios-metal"
        " or -t webgpu"
    )
