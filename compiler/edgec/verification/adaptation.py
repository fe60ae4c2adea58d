"""Where transformers' model of an architecture differs from the architecture's checkpoints.

Transformers renames tensors when it loads them, and some architectures it doesn't have are one that
it has, with weights multiplied by constants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Adaptation:
    """How to make a model of transformers compute what a checkpoint's architecture does.

    Attributes:
        config: for transformers.
        names: beginnings of its tensors' names, and what checkpoints have in their place.
        factors: by which tensors are multiplied once they are filled; by any component of the name.
    """

    config: dict[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)

    def stored(self, name: str) -> str:
        """What checkpoints call a tensor of transformers' model."""
        for theirs, stored in self.names.items():
            if name.startswith(theirs):
                return stored + name.removeprefix(theirs)
        return name

    def factor(self, name: str) -> float:
        """By which a tensor of transformers' model is multiplied."""
        return math.prod(self.factors.get(part, 1.0) for part in name.split("."))


def adapt(config: dict[str, Any]) -> Adaptation:
    """The adaptation for the architecture of a config; of most of them, none."""
    make = _BY_TYPE.get(str(config.get("model_type")))
    return Adaptation(config) if make is None else make(config)


def _gpt_neox(config: dict[str, Any]) -> Adaptation:
    return Adaptation(config, names={"lm_head.": "embed_out."})


def _qwen2_5_vl(config: dict[str, Any]) -> Adaptation:
    return Adaptation(config, names={"model.visual.": "visual.", "model.language_model.": "model."})


def _minicpm(config: dict[str, Any]) -> Adaptation:
    """A Llama whose scales are in its weights: all of them come before or after a linear layer."""
    branch = config.get("scale_depth", 1.0) / math.sqrt(config["num_hidden_layers"])
    tied = config.get("tie_word_embeddings", True)
    return Adaptation(
        {**config, "model_type": "llama", "tie_word_embeddings": False},
        names={"lm_head.": "model.embed_tokens."} if tied else {},
        factors={
            "embed_tokens": config.get("scale_emb", 1.0),
            "o_proj": branch,
            "down_proj": branch,
            "lm_head": config.get("dim_model_base", 1) / config["hidden_size"],
        },
    )


_BY_TYPE: dict[str, Callable[[dict[str, Any]], Adaptation]] = {
    "gpt_neox": _gpt_neox,
    "minicpm": _minicpm,
    "qwen2_5_vl": _qwen2_5_vl,
}
