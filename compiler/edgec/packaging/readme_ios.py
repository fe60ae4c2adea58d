"""The README of an iOS package: what is in it, and the three steps to the first token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec import __version__
from edgec.packaging.readme import models_table, title
from edgec.packaging.templates import template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.packaging.model import PackagedModel

_BUNDLED = (
    "Drag the folder `bundle` into the Xcode project as a folder reference, so that it is copied into"
    " the app whole."
)
_PACKS = """\
The weights are asset packs of Background Assets (iOS 26 and newer). Pack each with Xcode's
tool, in this folder, and upload it with Transporter, or try it with `xcrun ba-serve`:

```sh
{commands}
```

In Xcode, add a target from the template Background Download (Apple-Hosted, Managed), an app group for
both targets, and to the app's Info.plist `BAAppGroupID`, `BAHasManagedAssetPacks` and
`BAUsesAppleHosting`. Who hosts the files elsewhere finds sizes and SHA-256 in
`background-assets/files.json`."""
_URL = (
    "MLC's app downloads the files of `PackagedModel.files` from `url` + `/resolve/main/` + `path`. An"
    " app of your own does the same; compare sizes and SHA-256 before the engine sees a file."
)
_ROWS = "| `bundle/{}/` | the files that the engine loads |"


def readme(models: Sequence[PackagedModel], delivery: str | None, version: str) -> str:
    """The text.

    Args:
        models: of the package.
        delivery: when the system downloads the weights; None if they are part of the app.
        version: of the oldest iOS that the libraries run on.
    """
    bundled = [model for model in models if model.bundled]
    rows = [_ROWS.format(model.model_id) for model in bundled]
    if delivery is not None:
        rows.append("| `background-assets/` | manifests of asset packs with these files |")
    if not rows:
        rows = ["| `EdgecModels/Sources/EdgecModels/edgec-models.json` | what to download |"]
    parts = []
    if delivery is not None:
        commands = [
            f"xcrun ba-package background-assets/{model.store_name}.json -o ../{model.store_name}.aar"
            for model in bundled
        ]
        parts.append(_PACKS.format(commands="\n".join(commands)))
    elif bundled:
        parts.append(_BUNDLED)
    if any(model.url for model in models):
        parts.append(_URL)
    return template(
        "ios/README.md",
        title=title(models, "iOS"),
        version=__version__,
        models=models_table(models),
        ios=version,
        rows="\n".join(rows),
        weights="\n\n".join(parts),
        code=_code(delivery, bundled=bool(bundled)),
    )


def _code(delivery: str | None, *, bundled: bool) -> str:
    if delivery is not None:
        return "let folder = try await model.downloadedFolder()"
    if bundled:
        return (
            'guard let folder = model.bundledFolder else { fatalError("bundle is not in the app") }'
        )
    return (
        "let folder = URL.documentsDirectory.appending(path: model.id) // where the files were put"
    )
