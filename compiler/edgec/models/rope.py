"""Rotary position embedding: what a config says of it, in the form TVM's KV cache takes.

RoFormer, https://arxiv.org/abs/2104.09864; Llama 3's frequency scaling is described in
https://arxiv.org/abs/2407.21783, section 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from edgec.errors import CheckpointError, UnsupportedModelError

SUPPORTED_TYPES = ("default", "llama3")


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of one model.

    Attributes:
        theta: base of the frequencies.
        rotary_dim: leading dimensions of a head that are rotated.
        scaling: TVM's ``rope_scaling``; empty for the plain embedding.
    """

    theta: float
    rotary_dim: int
    scaling: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data, the inverse of ``Rope(**data)``."""
        return {"theta": self.theta, "rotary_dim": self.rotary_dim, "scaling": dict(self.scaling)}

    def inverse_frequencies(self) -> list[float]:
        """Radians by which a position turns each pair of dimensions: ``rotary_dim / 2`` of them."""
        plain = [
            self.theta ** (-2 * pair / self.rotary_dim) for pair in range(self.rotary_dim // 2)
        ]
        return [_stretched(turn, self.scaling) for turn in plain] if self.scaling else plain


def _stretched(turn: float, scaling: dict[str, Any]) -> float:
    """Llama 3's scaling: slow turns become slower by a factor, fast ones stay, others lie between."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling["original_max_position_embeddings"] * turn / (2 * math.pi)
    kept = min(1.0, max(0.0, (turns - low) / (high - low)))
    stretched: float = turn * (kept + (1 - kept) / scaling["factor"])
    return stretched


def rope_from_config(config: dict[str, Any], head_dim: int) -> Rope:
    """Read ``rope_parameters`` (transformers 5) or ``rope_theta`` and ``rope_scaling`` (before).

    Args:
        config: a model's ``config.json``.
        head_dim: size of one attention head.

    Raises:
        UnsupportedModelError: a rope type that isn't in ``SUPPORTED_TYPES``.
        CheckpointError: a scaling that lacks one of its numbers.
    """
    parameters = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or {}
    merged: dict[str, Any] = {**scaling, **parameters}
    theta = merged.get("rope_theta", config.get("rope_theta", 10000.0))
    kind = merged.get("rope_type", merged.get("type", "default"))
    partial = merged.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    if kind not in SUPPORTED_TYPES:
        raise UnsupportedModelError(
            f"RoPE type {kind!r} is not supported",
            where="config.json: rope_parameters",
            remedy=f"supported are {', '.join(SUPPORTED_TYPES)}",
        )
    rotary_dim = int(head_dim * float(partial))
    if kind == "default":
        return Rope(float(theta), rotary_dim)
    numbers = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    missing = [name for name in numbers if not isinstance(merged.get(name), (int, float))]
    if missing:
        raise CheckpointError(
            f"RoPE type {kind!r} needs the number{'s' if len(missing) > 1 else ''} {', '.join(missing)}",
            where="config.json: rope_parameters",
            remedy="take config.json from the model's original repository",
        )
    return Rope(
        float(theta), rotary_dim, {"rope_type": kind, **{name: merged[name] for name in numbers}}
    )
