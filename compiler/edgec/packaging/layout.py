"""Where things are in a package, on every platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.packaging.configs import objects_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.packaging.content import Content
    from edgec.packaging.model import PackagedModel

BUNDLE = "bundle"
"""Folder of the weights, one folder per model; MLC's packager and apps call it so."""
MODELS_FILE = "edgec-models.json"
"""The list of models that the code of a package reads, with sizes and digests of their files."""


def add_objects(content: Content, models: Sequence[PackagedModel]) -> None:
    """Put each model's objects in, as MLC's packager takes them."""
    for model in models:
        file = model.objects
        content.add_copy(objects_path(model), file.source, file.nbytes, file.sha256)


def add_bundle(content: Content, models: Sequence[PackagedModel]) -> None:
    """Put the files of the bundled models in, unchanged."""
    for model in models:
        for file in model.files if model.bundled else ():
            path = f"{BUNDLE}/{model.model_id}/{file.name}"
            content.add_copy(path, file.source, file.nbytes, file.sha256)
