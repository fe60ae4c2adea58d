"""The package for browsers: a folder that any server of static files can serve."""

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

from edgec import __version__, suggest
from edgec.errors import UsageError, VerificationError
from edgec.packaging import web_llm
from edgec.packaging.content import Content
from edgec.packaging.layout import MODELS_FILE
from edgec.packaging.readme import gigabytes, models_table
from edgec.packaging.templates import template
from edgec.packaging.web_config import (
    FILES_BELOW,
    WEB_APP_CONFIG,
    library_path,
    model_path,
    web_app_config,
    web_facts,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.packaging.model import PackagedModel

_TEMPLATES = Path(__file__).parent / "templates" / "web"
_PAGE = "index.html"
_ENGINE = "web-llm"


def web_content(models: Sequence[PackagedModel], delivery: str | None) -> Content:
    """All files of the site.

    Args:
        models: what goes in.
        delivery: None; app stores deliver nothing to browsers.

    Raises:
        UsageError: an app store's delivery is asked for.
        VerificationError: a library isn't one that runs in browsers.
        ToolchainError: npm is missing, or can't download WebLLM.
    """
    if delivery is not None:
        raise UsageError(
            "no app store delivers the files of web pages",
            where=f"--delivery {delivery}",
            remedy="leave it out",
        )
    for model in models:
        _check(model)
    content = Content()
    _add_page(content, models)
    content.add_json(WEB_APP_CONFIG, web_app_config(models))
    content.add_json(MODELS_FILE, {"models": [web_facts(model) for model in models]})
    for file in web_llm.web_llm_files():
        content.add_copy(f"{_ENGINE}/{file.name}", file.source, file.nbytes, file.sha256)
    for model in models:
        library = model.objects
        content.add_copy(library_path(model), library.source, library.nbytes, library.sha256)
        for file in model.files if model.bundled else ():
            path = f"{model_path(model)}/{FILES_BELOW}/{file.name}"
            content.add_copy(path, file.source, file.nbytes, file.sha256)
    content.add(
        "README.md",
        template(
            "web/README.md",
            title=f"{_names(models)} in the browser",
            version=__version__,
            models=models_table(models),
            size=gigabytes(content.nbytes),
            model=models[0].model_id,
        ),
    )
    return content


def _check(model: PackagedModel) -> None:
    if model.library.device is None or model.library.device.kind != "webgpu":
        raise VerificationError(
            "it has no kernels for WebGPU",
            where=str(model.library.path),
            remedy="build the artifact again with edgec build -t webgpu",
        )


def _add_page(content: Content, models: Sequence[PackagedModel]) -> None:
    """The page itself, which is the same for every model but for its title."""
    # The page may connect to nothing but its own site, except for weights that are elsewhere.
    sources = "'self'" if all(model.bundled for model in models) else "'self' https:"
    values = {"title": html.escape(_names(models)), "sources": sources}
    for path in sorted(_TEMPLATES.rglob("*")):
        name = path.relative_to(_TEMPLATES).as_posix()
        if path.is_dir() or name.startswith("npm/") or name == "README.md":
            continue
        content.add(name, template(f"web/{name}", **(values if name == _PAGE else {})))


def _names(models: Sequence[PackagedModel]) -> str:
    """The models by the names of their recipes, each once."""
    return suggest.listing(dict.fromkeys(str(model.artifact.manifest["name"]) for model in models))
