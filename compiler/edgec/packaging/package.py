"""A package from artifacts: look at them, lay the files out, write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgec import __version__, suggest
from edgec.errors import UsageError
from edgec.packaging.android import android_content
from edgec.packaging.folder import check_replaceable, package_manifest, write_package
from edgec.packaging.ios import ios_content
from edgec.packaging.model import model_id, read_model
from edgec.packaging.web import web_content
from edgec.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgec.artifacts.artifact import Artifact
    from edgec.packaging.content import Content
    from edgec.packaging.model import PackagedModel
    from edgec.progress import Progress

ANDROID, IOS, WEB = "android", "ios", "web"
APPS = (ANDROID, IOS, WEB)
DELIVERIES = ("install-time", "fast-follow", "on-demand")
_CONTENT = {ANDROID: android_content, IOS: ios_content, WEB: web_content}
_CALLED = {ANDROID: "Android", IOS: "iOS", WEB: "browsers"}
_HUB = "HF://"


@dataclass(frozen=True)
class Package:
    """A package that can be written.

    Attributes:
        platform: one of ``APPS``.
        models: what is in it.
        content: its files, the manifest not among them.
        manifest: content of ``edgec-package.json``.
        warnings: what the app's developer should know, a sentence each.
    """

    platform: str
    models: tuple[PackagedModel, ...]
    content: Content
    manifest: Mapping[str, Any]
    warnings: tuple[str, ...]

    def check(self, place: Path) -> bool:
        """Whether a package at ``place`` will be replaced.

        Raises:
            BuildError: there is something that edgec package has not written.
        """
        return check_replaceable(place)

    def write(self, place: Path, progress: Progress | None = None) -> None:
        """Write it to ``place``, whole or not at all.

        Raises:
            BuildError: there is something else, or it can't be written.
        """
        write_package(place, self.content, self.manifest, progress or Silent())


def plan_package(
    artifacts: Sequence[Artifact],
    *,
    urls: Mapping[str, str],
    bundle: bool,
    delivery: str | None,
    app: str | None = None,
    model_manifest: bool = False,
) -> Package:
    """Lay out a package.

    Args:
        artifacts: one or more, for one platform; their files are checked.
        urls: where apps download weights, by model id. Models that aren't named are bundled.
        bundle: whether the models that are named are bundled too.
        delivery: when the app store delivers bundled weights, one of ``DELIVERIES``; None if the
            weights are part of the app or brought to the device by other means.
        app: what the package must be for, one of ``APPS``; None for what the artifacts are for.
        model_manifest: whether WebLLM loads the models by their model manifests.

    Raises:
        UsageError: the artifacts can't be in one package, or in one for ``app``, or a URL can't be
            used.
        VerificationError: a file of an artifact is missing or damaged.
        BuildError: the weights don't fit into what the store delivers.
        ToolchainError: WebLLM, which a package for browsers has in it, can't be had.
    """
    assert urls.keys() <= {model_id(artifact) for artifact in artifacts}
    models = []
    for artifact in artifacts:
        url = urls.get(model_id(artifact))
        artifact.check_files()
        bundled = bundle or url is None
        models.append(read_model(artifact, url=url, bundled=bundled, by_manifest=model_manifest))
    if delivery is not None and not any(model.bundled for model in models):
        raise UsageError(
            "no model's weights are in the package, so the store has none to deliver",
            where=f"--delivery {delivery}",
            remedy="add --bundle-weights, or leave --delivery out",
        )
    platform = _platform(models, app)
    if model_manifest and platform != WEB:
        raise UsageError(
            f"no engine for {_CALLED[platform]} reads model manifests",
            where="--model-manifest",
            remedy="leave it out",
        )
    _check_names(models)
    content = _CONTENT[platform](models, delivery)
    facts = {
        "edgec": __version__,
        "platform": platform,
        "delivery": delivery,
        "models": [_facts(model) for model in models],
    }
    return Package(
        platform,
        tuple(models),
        content,
        package_manifest(content, facts),
        _warnings(platform, models),
    )


def parse_urls(words: Sequence[str], ids: Sequence[str]) -> dict[str, str]:
    """What ``--weights-url`` says, by model id.

    Args:
        words: each a URL, which only one model can have, or ``MODEL=URL``.
        ids: of the models.

    Raises:
        UsageError: a model isn't one of these, has two URLs, or apps can't use a URL.
    """
    urls: dict[str, str] = {}
    for word in words:
        name, separator, url = word.partition("=")
        if not separator or "://" in name:
            name, url = "", word
        if not name:
            if len(ids) > 1:
                raise UsageError(
                    "it isn't said whose weights these are",
                    where=f"--weights-url {word}",
                    remedy=f"write MODEL=URL with {suggest.listing(ids, last='or')} for MODEL",
                )
            name = ids[0]
        if name in urls:
            raise UsageError(
                f"{name} has two URLs", where=f"--weights-url {word}", remedy="leave one out"
            )
        _check_url(url, word)
        urls[name] = url.rstrip("/")
    unknown = sorted(urls.keys() - set(ids))
    if unknown:
        raise UsageError(
            f"there is no model {unknown[0]} in the package",
            where="--weights-url",
            remedy=suggest.instead_of(unknown[0], ids, noun="models"),
        )
    return urls


def _check_url(url: str, word: str) -> None:
    where = f"--weights-url {word}"
    if url.startswith(_HUB):
        if len(url.removeprefix(_HUB).strip("/").split("/")) != 2:
            raise UsageError(
                "a repository of the hub has an owner and a name",
                where=where,
                remedy="write HF://OWNER/NAME",
            )
        return
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme != "https" or not parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            "apps download from https:// addresses without a query, or from HF://OWNER/NAME",
            where=where,
            remedy="write one of these",
        )
    if "/resolve/" in f"{parts.path}/":
        raise UsageError(
            "MLC's apps and WebLLM add /resolve/main/FILE to the address themselves",
            where=where,
            remedy=f"write {url.partition('/resolve/')[0]}",
        )


def _check_names(models: Sequence[PackagedModel]) -> None:
    seen: dict[str, PackagedModel] = {}
    for model in models:
        for key in (f"id {model.model_id}", f"library {model.model_lib}"):
            if key in seen:
                name = key.partition(" ")[2]
                raise _same(name, seen[key].artifact, model.artifact)
            seen[key] = model


def _same(name: str, first: Artifact, second: Artifact) -> UsageError:
    return UsageError(
        f"it and {first.folder} are both called {name}, and an app can't tell them apart",
        where=str(second.folder),
        remedy="make a package of each, or give one recipe another name",
    )


def _platform(models: Sequence[PackagedModel], app: str | None) -> str:
    found = {_platform_of(model): model for model in models}
    if len(found) > 1:
        first, second = sorted(found)[:2]
        raise UsageError(
            f"{found[first].artifact.folder} is for {_CALLED[first]} and"
            f" {found[second].artifact.folder} for {_CALLED[second]}",
            where="edgec package",
            remedy="make a package for each",
        )
    (platform,) = found
    if app not in {None, platform}:
        raise UsageError(
            f"{found[platform].artifact.folder} is for {_CALLED[platform]}",
            where=f"--app {app}",
            remedy=f"write --app {platform}, or name an artifact for {_CALLED[str(app)]}",
        )
    return platform


def _platform_of(model: PackagedModel) -> str:
    library = model.library
    if library.object_format == "wasm":
        return WEB
    stated = model.artifact.manifest.get("platform", "")
    platform = IOS if library.object_format == "macho" else ANDROID
    if library.machine != "aarch64" or stated not in {"", platform}:
        raise UsageError(
            f"it is for {model.artifact.manifest['target']}, and packages are for phones and browsers",
            where=str(model.artifact.folder),
            remedy="name an artifact for Android, iOS or browsers",
        )
    return platform


def _facts(model: PackagedModel) -> dict[str, Any]:
    manifest = model.artifact.manifest
    return {
        "model_id": model.model_id,
        "model_lib": model.model_lib,
        "target": manifest["target"],
        "build": manifest["build"]["digest"],
        "estimated_vram_bytes": model.estimated_vram_bytes,
        "weights_bytes": model.nbytes,
        "bundled": model.bundled,
        "model_url": model.web_url,
    }


def _warnings(platform: str, models: Sequence[PackagedModel]) -> tuple[str, ...]:
    engine = {ANDROID: "mlc4j opens models with OpenCL", IOS: "MLCSwift opens models with Metal"}
    found = []
    for model in models:
        if not model.was_run:
            found.append(
                f"{model.model_id} was built without being run: its output has not been compared with anything"
            )
        if model.library.device is None and platform in engine:
            found.append(
                f"{model.model_id} computes on the CPU, and {engine[platform]}: it is for an engine"
                " of your own"
            )
    return tuple(found)
