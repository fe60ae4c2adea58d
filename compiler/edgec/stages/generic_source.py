"""The source of a generic model, as the stages open it: to import it, and to compare with it."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgec.checkpoints import hub
from edgec.importers.find import FUNCTION, open_source
from edgec.importers.imported import TensorType
from edgec.recipe.source import parse_generic_source

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.importers.imported import SourceModel

_CONFIG = "config.json"


@dataclass(frozen=True)
class Original:
    """An opened source.

    Attributes:
        model: in its own framework.
        folder: with its config and tokenizer; None for sources that are one file.
    """

    model: SourceModel
    folder: Path | None


def open_original(local: Mapping[str, Any], inputs: Mapping[str, Any]) -> Original:
    """Open the source that a stage's ``local`` names, with what the recipe declares.

    Args:
        local: ``source``, ``base`` and ``seed``.
        inputs: ``generic.inputs`` and ``generic.bounds``.

    Raises:
        EdgecError: it can't be opened, or what is declared doesn't fit it.
    """
    reference = parse_generic_source(str(local["source"]))
    path = Path(str(local["base"])) / reference.location
    declared = tuple(
        TensorType(item["name"], tuple(item["shape"]), item["dtype"] or "")
        for item in inputs["generic.inputs"]
    )
    bounds = {str(name): int(bound) for name, bound in inputs["generic.bounds"].items()}
    if reference.kind == "torch":
        source = f"{FUNCTION}{path}:{reference.function}"
        return Original(open_source(source, declared=declared, bounds=bounds), None)
    if reference.kind == "synthetic":
        seed = int(local["seed"])
        # Importers take a folder, and the config may have another name.
        with tempfile.TemporaryDirectory() as folder:
            shutil.copyfile(path, Path(folder) / _CONFIG)
            model = open_source(folder, declared=declared, bounds=bounds, seed=seed)
        return Original(model, path.parent)
    if reference.kind == "hub":
        fetched = hub.fetch_config(hub.parse_source(str(local["source"])))
        path = hub.fetch_weights(fetched, check=bool(local.get("check")))
    model = open_source(str(path), declared=declared, bounds=bounds)
    return Original(model, path if path.is_dir() else None)
