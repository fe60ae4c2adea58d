"""The Android package: MLC's files, a Gradle module, and AI packs of Play for On-device AI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.errors import BuildError
from edgec.packaging.configs import (
    APP_CONFIG,
    PACKAGE_CONFIG,
    app_config,
    model_facts,
    package_config,
)
from edgec.packaging.content import Content
from edgec.packaging.layout import BUNDLE, MODELS_FILE, add_bundle, add_objects
from edgec.packaging.library import merge
from edgec.packaging.packs import Pack, split
from edgec.packaging.readme_android import readme
from edgec.packaging.templates import template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.packaging.model import PackagedModel

LIBRARY = "lib/libmodel_android.a"
MODULE = "android/edgec-models"
_ASSETS = f"{MODULE}/src/main/assets"
_JAVA = f"{MODULE}/src/main/java/edgec/models"
_AI_DELIVERY = "com.google.android.play:ai-delivery:0.1.1-alpha01"
# Play's limits are 1.5 GB per pack and 4 GB per version of an app, of what is downloaded. Weights
# don't get smaller by compression; a hundredth is left for the rest of a pack and of the app.
_PACK_BYTES = 1_485_000_000
_APP_BYTES = 3_960_000_000

Packs = dict[str, tuple[Pack, ...]]


def android_content(models: Sequence[PackagedModel], delivery: str | None) -> Content:
    """All files of the package.

    Args:
        models: what goes in.
        delivery: when Play delivers the weights: ``"install-time"``, ``"fast-follow"`` or
            ``"on-demand"``; None if it doesn't.

    Raises:
        BuildError: the weights don't fit into what Play delivers.
        VerificationError: the merged library lacks a model.
    """
    content = Content()
    content.add(LIBRARY, merge(models))
    add_objects(content, models)
    packs: Packs = {}
    if delivery is None:
        add_bundle(content, models)
        folders = {
            model.model_id: f"{BUNDLE}/{model.model_id}" for model in models if model.bundled
        }
    else:
        packs = _split(models)
        _add_packs(content, packs, delivery)
        folders = {name: _pack_assets(found[0], name) for name, found in packs.items()}
    content.add_json(f"{BUNDLE}/{APP_CONFIG}", app_config(models, paths=False))
    content.add_json(PACKAGE_CONFIG, package_config("android", models, folders))
    _add_module(content, models, packs, delivery)
    content.add("build-mlc4j.sh", template("android/build-mlc4j.sh"), executable=True)
    content.add("README.md", readme(models, packs, delivery))
    return content


def _split(models: Sequence[PackagedModel]) -> Packs:
    bundled = [model for model in models if model.bundled]
    total = sum(model.nbytes for model in bundled)
    if total > _APP_BYTES:
        raise BuildError(
            f"the weights have {total} bytes, and Play delivers at most 4 GB with an app",
            where=", ".join(model.model_id for model in bundled),
            remedy="package fewer models, or have the app download weights (--weights-url)",
        )
    return {model.model_id: split(model, _PACK_BYTES) for model in bundled}


def _add_packs(content: Content, packs: Packs, delivery: str) -> None:
    for name, found in packs.items():
        for pack in found:
            script = template("android/ai-pack.gradle.kts", pack=pack.name, delivery=delivery)
            content.add(f"android/{pack.name}/build.gradle.kts", script)
            for file in pack.files:
                path = f"{_pack_assets(pack, name)}/{file.name}"
                content.add_copy(path, file.source, file.nbytes, file.sha256)


def _pack_assets(pack: Pack, model_id: str) -> str:
    return f"android/{pack.name}/src/main/assets/{model_id}"


def _add_module(
    content: Content, models: Sequence[PackagedModel], packs: Packs, delivery: str | None
) -> None:
    fetched = delivery in {"fast-follow", "on-demand"}
    finder = "fetched" if fetched else "files" if delivery is None else "installed"
    dependency = f'    api("{_AI_DELIVERY}")\n' if fetched else ""
    internet = '    <uses-permission android:name="android.permission.INTERNET" />\n\n'
    downloads = any(model.url for model in models)
    content.add(
        f"{MODULE}/build.gradle.kts",
        template("android/build.gradle.kts", dependencies=dependency),
    )
    content.add(
        f"{MODULE}/src/main/AndroidManifest.xml",
        template("android/AndroidManifest.xml", permissions=internet if downloads else ""),
    )
    content.add_json(f"{_ASSETS}/{APP_CONFIG}", app_config(models, paths=False))
    content.add_json(
        f"{_ASSETS}/{MODELS_FILE}", {"models": [_facts(model, packs) for model in models]}
    )
    content.add(f"{_JAVA}/PackagedModel.java", template("android/PackagedModel.java"))
    content.add(f"{_JAVA}/ModelFolder.java", template(f"android/ModelFolder_{finder}.java"))


def _facts(model: PackagedModel, packs: Mapping[str, Sequence[Pack]]) -> dict[str, Any]:
    """A model's entry in the list, with the pack that each file is in."""
    facts = model_facts(model)
    by_file = {
        file.name: pack.name for pack in packs.get(model.model_id, ()) for file in pack.files
    }
    for file in facts["files"]:
        if file["path"] in by_file:
            file["pack"] = by_file[file["path"]]
    return facts
