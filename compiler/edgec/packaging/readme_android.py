"""The README of an Android package: what is in it, and the three steps to the first token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec import __version__
from edgec.packaging.readme import gigabytes, models_table, title
from edgec.packaging.templates import template

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.packaging.model import PackagedModel
    from edgec.packaging.packs import Pack

_CHAT = """\
val engine = MLCEngine()
engine.reload(folder.path, model.lib)
lifecycleScope.launch {
    val answer = engine.chat.completions.create(
        messages = listOf(ChatCompletionMessage(role = ChatCompletionRole.user, content = "Hello"))
    )
    for (response in answer) {
        print(response.choices.firstOrNull()?.delta?.content?.asText().orEmpty())
    }
}"""
_IMPORTS = """\
import ai.mlc.mlcllm.MLCEngine
import ai.mlc.mlcllm.OpenAIProtocol.ChatCompletionMessage
import ai.mlc.mlcllm.OpenAIProtocol.ChatCompletionRole
import edgec.models.ModelFolder
import edgec.models.PackagedModel

val model = PackagedModel.all(context)[0]"""
_FIND = "val folder = ModelFolder.find(context, model)"
_MISSING = ' ?: error("files are missing below ${ModelFolder.place(context, model)}")'
_FETCH = """\
val folder = ModelFolder.find(context, model) ?: run {
    ModelFolder.fetch(context, model) // Play downloads; find again when all packs are COMPLETED
    return
}"""
_INSTALLED = (
    "Play installs the packs with the app, as APKs. The first time, `find` copies the files out of"
    " them, because the engine loads files; so the model takes its size twice."
)
_FETCHED = (
    "Play downloads the packs {when}. `find` makes one folder of links to all of them; it returns"
    " null as long as one is missing. Show Play's progress with `AiPackManager.registerListener`,"
    " and its dialog when the user has to agree to a download of more than 200 MB."
)
_WHEN = {"fast-follow": "right after the app was installed", "on-demand": "when `fetch` is called"}
_LOCAL_TEST = (
    "Packs come only from Play: test on an internal track, or locally with"
    " `bundletool build-apks --local-testing`."
)


def readme(
    models: Sequence[PackagedModel], packs: Mapping[str, Sequence[Pack]], delivery: str | None
) -> str:
    """The text.

    Args:
        models: of the package.
        packs: AI packs by model id, if there are any.
        delivery: when Play delivers them.
    """
    names = [pack.name for found in packs.values() for pack in found]
    assets = ", ".join(f'":{name}"' for name in names)
    projects = [
        f'project(":{name}").projectDir = file("path/to/package/android/{name}")\n'
        for name in names
    ]
    return template(
        "android/README.md",
        title=title(models, "Android"),
        version=__version__,
        models=models_table(models),
        rows=_rows(models, packs),
        includes="".join(f', ":{name}"' for name in names),
        package="path/to/package",
        projects="".join(projects),
        packs=f"    assetPacks += listOf({assets})\n" if names else "",
        weights=_weights(models, delivery),
        code=_code(delivery),
    )


def _rows(models: Sequence[PackagedModel], packs: Mapping[str, Sequence[Pack]]) -> str:
    rows = [
        f"| `android/{pack.name}/` | an AI pack: {gigabytes(pack.nbytes)} of the files of {name} |"
        for name, found in packs.items()
        for pack in found
    ]
    if not packs:
        rows = [
            f"| `bundle/{model.model_id}/` | the files that the engine loads |"
            for model in models
            if model.bundled
        ]
    return "\n".join(rows) or "| `android/edgec-models/src/main/assets/` | what to download |"


def _weights(models: Sequence[PackagedModel], delivery: str | None) -> str:
    if delivery == "install-time":
        return f"{_INSTALLED} {_LOCAL_TEST}"
    if delivery is not None:
        return f"{_FETCHED.format(when=_WHEN[delivery])} {_LOCAL_TEST}"
    parts = []
    pushed = [model for model in models if model.bundled]
    if pushed:
        first = pushed[0].model_id
        place = "/storage/emulated/0/Android/data/APPLICATION_ID/files"
        parts.append(
            "Push the files to a device that has the app:"
            f"\n\n```sh\nadb push bundle/{first} /data/local/tmp/{first}\n"
            f"adb shell mkdir -p {place}\n"
            f"adb shell mv /data/local/tmp/{first} {place}/\n```\n\n"
            "For users, package again with `--delivery fast-follow` (Play brings the files) or with"
            " `--weights-url` (the app downloads them)."
        )
    if any(model.url for model in models):
        parts.append(
            "MLC's app downloads the files of `PackagedModel.files` from `url` +"
            " `/resolve/main/` + `path`. An app of your own does the same, into"
            " `ModelFolder.place`; compare sizes and SHA-256 before the engine sees a file."
        )
    return "\n\n".join(parts)


def _code(delivery: str | None) -> str:
    find = {None: _FIND + _MISSING, "install-time": _FIND}.get(delivery, _FETCH)
    return f"{_IMPORTS}\n{find}\n{_CHAT}"
