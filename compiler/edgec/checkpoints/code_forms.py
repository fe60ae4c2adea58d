"""Which of a model's tensors are codes already: as its checkpoint says, or as its config lets expect."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.checkpoints.codes import CodesForm, HasCodes
from edgec.checkpoints.quantized import read_format
from edgec.errors import EdgecError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.checkpoints.checkpoint import Checkpoint
    from edgec.models.parameters import Parameter


def code_forms(checkpoint: Checkpoint, parameters: Sequence[Parameter]) -> dict[str, CodesForm]:
    """The forms of the tensors that can be taken over, by name. Reads zero points and no codes.

    Args:
        checkpoint: the weights.
        parameters: of the model.

    Raises:
        CheckpointError: a file is damaged.
    """
    if not isinstance(checkpoint, HasCodes):
        return {}
    there = set(checkpoint.names())
    found = {
        source.name: checkpoint.codes(source.name)
        for parameter in parameters
        for source in parameter.sources
        if source.name in there
    }
    return {name: form for name, form in found.items() if form is not None}


def expected_forms(
    config: Mapping[str, Any], parameters: Sequence[Parameter]
) -> dict[str, CodesForm]:
    """What :func:`code_forms` will give, before weights are fetched: GPTQ and AWQ of every linear layer.

    Args:
        config: the content of ``config.json``.
        parameters: of the model.
    """
    try:
        form = read_format(config, "config.json")
    except EdgecError:
        return {}
    codes = None if form is None else form.codes
    if codes is None:
        return {}
    linear = (parameter for parameter in parameters if parameter.role == "linear")
    return {source.name: codes for parameter in linear for source in parameter.sources}
