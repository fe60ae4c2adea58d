"""Rotary position embedding, in the form TVM's KV cache takes.

RoFormer, https://arxiv.org/abs/2104.09864; Llama 3's frequency scaling is described in
https://arxiv.org/abs/2407.21783, section 3.2; LongRoPE in https://arxiv.org/abs/2402.13753.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

LONGROPE = "longrope"
LINEAR = "linear"


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of one model.

    Attributes:
        theta: base of the frequencies.
        rotary_dim: leading dimensions of a head that are rotated.
        scaling: ``rope_type`` and its numbers; empty for the plain embedding. Of ``longrope``:
            ``short_factor`` and ``long_factor``, each ``rotary_dim / 2`` numbers by which a pair
            turns slower in contexts of up to ``original_max_position_embeddings`` tokens and in
            longer ones, and ``attention_factor``, which multiplies sines and cosines in both. Of
            ``linear``: ``factor``, by which all pairs turn slower; caches don't rotate so.
    """

    theta: float
    rotary_dim: int
    scaling: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data, the inverse of ``Rope(**data)``."""
        return {"theta": self.theta, "rotary_dim": self.rotary_dim, "scaling": dict(self.scaling)}

    @property
    def kind(self) -> str:
        """``"default"``, or the type of the scaling."""
        return str(self.scaling.get("rope_type", "default"))

    def at_length(self, context_length: int) -> Rope:
        """The embedding in a context of so many tokens, of which both factors are the same.

        Keys are rotated once, when they are appended, so all tokens of a library turn alike: the
        long factors where a sequence may become longer than the original length, the short ones
        elsewhere.
        """
        if self.kind != LONGROPE:
            return self
        long = context_length > self.scaling["original_max_position_embeddings"]
        chosen = self.scaling["long_factor" if long else "short_factor"]
        return replace(
            self, scaling={**self.scaling, "long_factor": chosen, "short_factor": chosen}
        )

    def inverse_frequencies(self) -> list[float]:
        """Radians by which a position turns each pair of dimensions: ``rotary_dim / 2`` of them."""
        plain = [
            self.theta ** (-2 * pair / self.rotary_dim) for pair in range(self.rotary_dim // 2)
        ]
        if self.kind == LONGROPE:
            long, short = self.scaling["long_factor"], self.scaling["short_factor"]
            assert long == short, "at_length says which factors there are"
            return [turn / factor for turn, factor in zip(plain, short, strict=True)]
        return [_stretched(turn, self.scaling) for turn in plain] if self.scaling else plain


def _stretched(turn: float, scaling: dict[str, Any]) -> float:
    """Llama 3's scaling: slow turns become slower by a factor, fast ones stay, others lie between.

    Linear scaling makes all of them slower.
    """
    if scaling["rope_type"] == LINEAR:
        return float(turn / scaling["factor"])
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * turn / (2 * math.pi)
    kept = min(1.0, max(0.0, (turns - low) / (high - low)))
    stretched: float = turn * (kept + (1 - kept) / scaling["factor"])
    return stretched
