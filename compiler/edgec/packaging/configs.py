"""MLC's own files: what its packager reads, and what its apps read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.packaging.model import PackagedModel

APP_CONFIG = "mlc-app-config.json"
PACKAGE_CONFIG = "mlc-package-config.json"


def app_config(models: Sequence[PackagedModel], *, paths: bool) -> dict[str, Any]:
    """``mlc-app-config.json``: the models that an app offers.

    Args:
        models: all of the package.
        paths: whether the app can load a model from its bundle, as the iOS app does by
            ``model_path``. The Android app reads ``model_url`` and fails when it isn't there.
    """
    return {"model_list": [_app_entry(model, paths=paths) for model in models]}


def package_config(
    device: str, models: Sequence[PackagedModel], folders: Mapping[str, str]
) -> dict[str, Any]:
    """``mlc-package-config.json``, from which ``mlc_llm package`` builds the binding.

    Paths are relative to the package's folder, in which the command is run.

    Args:
        device: as MLC calls it: ``"android"`` or ``"iphone"``.
        models: all of the package.
        folders: where the files of a bundled model are, by its id.
    """
    return {
        "device": device,
        "model_list": [
            {
                "model": folders.get(model.model_id, model.url),
                "model_id": model.model_id,
                "model_lib": model.model_lib,
                "estimated_vram_bytes": model.estimated_vram_bytes,
                "bundle_weight": model.bundled,
            }
            for model in models
        ],
        "model_lib_path_for_prepare_libs": {
            model.model_lib: objects_path(model) for model in models
        },
    }


def model_facts(model: PackagedModel) -> dict[str, Any]:
    """What ``edgec-models.json`` says of a model, apart from how it is delivered."""
    return {
        "model_id": model.model_id,
        "model_lib": model.model_lib,
        "estimated_vram_bytes": model.estimated_vram_bytes,
        "model_url": model.web_url,
        "files": [
            {"path": file.name, "bytes": file.nbytes, "sha256": file.sha256} for file in model.files
        ],
    }


def objects_path(model: PackagedModel) -> str:
    """Where the package has a model's objects, as MLC's packager takes them."""
    return f"lib/{model.model_lib}.tar"


def _app_entry(model: PackagedModel, *, paths: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "model_id": model.model_id,
        "model_lib": model.model_lib,
        "estimated_vram_bytes": model.estimated_vram_bytes,
    }
    if paths and model.bundled:
        entry["model_path"] = model.model_id
    else:
        entry["model_url"] = model.web_url or ""
    return entry
