"""The parameters of a model from its config alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.models.find import load_family

if TYPE_CHECKING:
    from edgec.models.parameters import Parameter


def model_parameters(config: dict[str, Any]) -> list[Parameter]:
    """What the family's model holds, in order of definition; loads TVM.

    Raises:
        CheckpointError: the config lacks a field.
        UnsupportedModelError: no family has code for it.
    """
    family = load_family(config)
    from edgec.models.causal_lm import parameters_of  # noqa: PLC0415 - needs TVM loaded first

    # The dtype doesn't change names and shapes.
    return parameters_of(family.build(family.Config.from_hf(config), "float32"))
