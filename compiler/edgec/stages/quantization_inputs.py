"""The part of the stages' inputs that says how parameters are quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class OverrideInput:
    """One entry of a recipe's ``quantization.overrides``."""

    match: str
    bits: int
    group_size: int | None


def read_overrides(inputs: Mapping[str, Any]) -> Sequence[OverrideInput]:
    """The overrides in a stage's inputs."""
    return [OverrideInput(**item) for item in inputs["quantization.overrides"]]
