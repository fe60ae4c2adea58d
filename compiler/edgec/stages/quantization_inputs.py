"""The part of the stages' inputs that says how parameters are quantized."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.quantization.plan import tensor_schemes
from edgec.quantization.schemes import find_scheme

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.checkpoints.codes import CodesForm
    from edgec.models.parameters import Parameter
    from edgec.quantization.schemes import Scheme, TensorScheme


@dataclass(frozen=True)
class OverrideInput:
    """One entry of a recipe's ``quantization.overrides``."""

    match: str
    bits: int
    group_size: int | None


def read_scheme(inputs: Mapping[str, Any]) -> Scheme:
    """The model's scheme in a stage's inputs."""
    return find_scheme(str(inputs["quantization.scheme"]))


def read_schemes(
    parameters: Sequence[Parameter], inputs: Mapping[str, Any], codes: Mapping[str, CodesForm]
) -> dict[str, TensorScheme | None]:
    """How each parameter is stored, by its name; every stage that asks gets the same answer.

    Args:
        parameters: of the model.
        inputs: of the stage.
        codes: the tensors that the checkpoint holds as codes.

    Raises:
        UsageError: a group size doesn't divide, or an override has no effect.
    """
    return tensor_schemes(
        parameters,
        read_scheme(inputs),
        int(inputs["quantization.group_size"]),
        [OverrideInput(**item) for item in inputs["quantization.overrides"]],
        codes,
    )
