"""Find a model's family by the ``model_type`` of its config: the file of that name."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import Any, Protocol

from edgec.errors import CheckpointError, UnsupportedModelError
from edgec.ir.load import load_tvm

ALIASES: dict[str, str] = {}
"""``model_type`` values whose family stands in a file of another name."""

# Of names: mamba is no misspelt llama.
_ALIKE = 0.75
_SHARED = {
    "attention",
    "blocks",
    "causal_lm",
    "causal_lm_parameters",
    "decoder",
    "dense",
    "find",
    "hf_config",
    "image_grid",
    "images",
    "in_place",
    "kv_cache",
    "layer_kinds",
    "matrix",
    "mlp",
    "moe",
    "mrope",
    "norms",
    "parameters",
    "rope",
    "rope_at_length",
    "rope_config",
    "rotation",
    "scaled",
    "vision_tower",
    "window",
}


class Family(Protocol):
    """What a family's module offers."""

    Config: Any
    IGNORED_TENSORS: tuple[str, ...]

    def build(self, config: Any, dtype: str) -> Any:
        """The model with plain weights."""


def families() -> list[str]:
    """Names of the families, which are the files of this folder that aren't shared pieces."""
    folder = Path(__file__).parent
    return sorted(
        path.stem
        for path in folder.glob("*.py")
        if path.stem not in _SHARED and not path.stem.startswith("_")
    )


def family_name(config: dict[str, Any]) -> str:
    """The family of a config, without importing it.

    Raises:
        CheckpointError: the config has no ``model_type``.
        UnsupportedModelError: no family of that name exists.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise CheckpointError(
            "the field is missing",
            where="config.json: model_type",
            remedy="take config.json from the model's original repository",
        )
    known = families()
    name = ALIASES.get(model_type, model_type)
    if name not in known:
        close = difflib.get_close_matches(model_type, known, n=1, cutoff=_ALIKE)
        hint = f", nearest is {close[0]}" if close else ""
        raise UnsupportedModelError(
            f"architecture {model_type!r} is not supported{hint}",
            where="config.json: model_type",
            remedy=f"supported families: {', '.join(known)};"
            " networks that write no text are built with kind: generic in the recipe",
        )
    return name


def load_family(config: dict[str, Any]) -> Family:
    """The family's module; loads TVM."""
    load_tvm()
    return importlib.import_module(f"edgec.models.{family_name(config)}")
