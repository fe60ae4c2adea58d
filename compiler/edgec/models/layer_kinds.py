"""Which layers of a model are local: their tokens see the latest tokens only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.errors import UnsupportedModelError
from edgec.models.hf_config import ConfigReader

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOCAL, _GLOBAL = "sliding_attention", "full_attention"


def local_layers(config: Mapping[str, Any], period: int) -> tuple[bool, ...]:
    """Whether each layer is local.

    Args:
        config: a model's ``config.json``. ``layer_types`` names each layer's kind; before
            transformers had that, one global layer closed each group of ``sliding_window_pattern``.
        period: that number where the config doesn't say.

    Raises:
        CheckpointError: there are not as many kinds as layers.
        UnsupportedModelError: another kind of layer.
    """
    read = ConfigReader(config)
    layers = read.positive("num_hidden_layers")
    kinds: Any = config.get("layer_types")
    if kinds is None:
        period = read.positive("sliding_window_pattern", default=period)
        return tuple((index + 1) % period != 0 for index in range(layers))
    read.require(
        isinstance(kinds, list) and len(kinds) == layers,
        "layer_types",
        f"there must be one for each of the {layers} layers",
    )
    for kind in kinds:
        if kind not in {_LOCAL, _GLOBAL}:
            raise UnsupportedModelError(
                f"layers of the kind {kind!r} are not supported",
                where="config.json: layer_types",
                remedy=f"supported: {_LOCAL}, {_GLOBAL}",
            )
    return tuple(kind == _LOCAL for kind in kinds)
