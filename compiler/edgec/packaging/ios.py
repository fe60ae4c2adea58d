"""The iOS package: MLC's files, a Swift package, and asset packs of Background Assets."""

from __future__ import annotations

import plistlib
from typing import TYPE_CHECKING, Any

from edgec.packaging.configs import (
    APP_CONFIG,
    PACKAGE_CONFIG,
    app_config,
    model_facts,
    package_config,
)
from edgec.packaging.content import Content
from edgec.packaging.layout import BUNDLE, MODELS_FILE, add_bundle, add_objects
from edgec.packaging.library import anchors, merge, system_version
from edgec.packaging.readme_ios import readme
from edgec.packaging.templates import template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.packaging.model import PackagedModel

_NAME = "libmodel_iphone.a"
LIBRARY = f"lib/{_NAME}"
PACKAGE = "EdgecModels"
ASSETS = "background-assets"
_FRAMEWORK = f"{PACKAGE}/ModelIPhone.xcframework"
_SLICE = "ios-arm64"
_SOURCES = f"{PACKAGE}/Sources/EdgecModels"
_ANCHOR = f"{PACKAGE}/Sources/EdgecModelsAnchor"
_EVENTS = {"installationEventTypes": ["firstInstallation", "subsequentUpdate"]}
_POLICIES: dict[str, dict[str, Any]] = {
    "install-time": {"essential": _EVENTS},
    "fast-follow": {"prefetch": _EVENTS},
    "on-demand": {"onDemand": {}},
}


def ios_content(models: Sequence[PackagedModel], delivery: str | None) -> Content:
    """All files of the package.

    Args:
        models: what goes in.
        delivery: when the system downloads the weights: ``"install-time"`` (the policy
            ``essential``), ``"fast-follow"`` (``prefetch``) or ``"on-demand"``; None if they are
            part of the app.

    Raises:
        VerificationError: the merged library lacks a model.
    """
    content = Content()
    library = merge(models)
    content.add(LIBRARY, library)
    add_objects(content, models)
    add_bundle(content, models)
    folders = {model.model_id: f"{BUNDLE}/{model.model_id}" for model in models if model.bundled}
    content.add_json(f"{BUNDLE}/{APP_CONFIG}", app_config(models, paths=True))
    content.add_json(PACKAGE_CONFIG, package_config("iphone", models, folders))
    version = system_version(models)
    _add_framework(content, library)
    _add_package(content, models, version, delivery)
    if delivery is not None:
        _add_asset_packs(content, models, delivery)
    content.add("README.md", readme(models, delivery, version))
    return content


def _add_framework(content: Content, library: bytes) -> None:
    """The library as Swift packages take binaries; there is none for the simulator."""
    info = {
        "AvailableLibraries": [
            {
                "BinaryPath": _NAME,
                "LibraryIdentifier": _SLICE,
                "LibraryPath": _NAME,
                "SupportedArchitectures": ["arm64"],
                "SupportedPlatform": "ios",
            }
        ],
        "CFBundlePackageType": "XFWK",
        "XCFrameworkFormatVersion": "1.0",
    }
    content.add(f"{_FRAMEWORK}/Info.plist", plistlib.dumps(info, sort_keys=True))
    content.add(f"{_FRAMEWORK}/{_SLICE}/{_NAME}", library)


def _add_package(
    content: Content, models: Sequence[PackagedModel], version: str, delivery: str | None
) -> None:
    content.add(f"{PACKAGE}/Package.swift", template("ios/Package.swift", ios=version))
    symbols = anchors(models)
    # Names that aren't C's are no matter: they are given as the linker has them.
    declarations = [
        f'extern const char object_{number}[] __asm__("_{symbol}");'
        for number, symbol in enumerate(symbols)
    ]
    uses = [f"    object_{number},\n" for number in range(len(symbols))]
    content.add(
        f"{_ANCHOR}/anchor.c",
        template(
            "ios/anchor.c", declarations="\n".join(declarations) + "\n", symbols="".join(uses)
        ),
    )
    content.add(f"{_ANCHOR}/include/EdgecModelsAnchor.h", template("ios/EdgecModelsAnchor.h"))
    content.add(f"{_SOURCES}/PackagedModel.swift", template("ios/PackagedModel.swift"))
    if delivery is not None:
        content.add(f"{_SOURCES}/AssetPacks.swift", template("ios/AssetPacks.swift"))
    listed = [{**model_facts(model), "asset_packs": _packs(model, delivery)} for model in models]
    content.add_json(f"{_SOURCES}/{MODELS_FILE}", {"models": listed})


def _packs(model: PackagedModel, delivery: str | None) -> list[str]:
    """A model is one asset pack: App Store Connect limits their sum, not their size."""
    return [model.store_name] if delivery is not None and model.bundled else []


def _add_asset_packs(content: Content, models: Sequence[PackagedModel], delivery: str) -> None:
    """What ``xcrun ba-package`` reads, and a list for those who host the files themselves."""
    files = []
    for model in models:
        for pack in _packs(model, delivery):
            paths = [f"{BUNDLE}/{model.model_id}/{file.name}" for file in model.files]
            manifest = {
                "assetPackID": pack,
                "downloadPolicy": _POLICIES[delivery],
                "fileSelectors": [{"file": path} for path in paths],
                "platforms": ["iOS"],
            }
            content.add_json(f"{ASSETS}/{pack}.json", manifest)
            files += [
                {"path": path, "bytes": file.nbytes, "sha256": file.sha256}
                for path, file in zip(paths, model.files, strict=True)
            ]
    content.add_json(f"{ASSETS}/files.json", {"files": files})
