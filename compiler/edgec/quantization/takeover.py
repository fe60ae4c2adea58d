"""Codes that a checkpoint holds already, taken over as they are.

A tensor that fits its scheme is stored with the checkpoint's own codes, scales and zero points, so that
nothing is lost. Quantizing the values anew would find other scales: a group in which the largest
code isn't in use has another peak. A tensor fits if the scheme's codes are as wide or wider, if its
scales hold the checkpoint's exactly, and if the checkpoint's groups consist of whole groups of the
scheme: each of these then has the scale and the zero point of the one that it is a part of. All other
tensors are dequantized and quantized anew. Each source of a fused parameter is judged by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgec.checkpoints.codes import HasCodes
from edgec.quantization.badrows import BadRowError, first_row
from edgec.quantization.tensors import QuantizedTensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.checkpoints.checkpoint import Checkpoint
    from edgec.checkpoints.codes import CodesForm
    from edgec.models.parameters import Parameter
    from edgec.quantization.schemes import TensorScheme

TAKEN_OVER = "checkpoint"
"""What stands in place of a method where the codes are the checkpoint's."""


def fits(form: CodesForm, scheme: TensorScheme) -> bool:
    """Whether codes of this form can be stored in a scheme exactly, zero points aside."""
    return (
        form.bits <= scheme.bits
        and form.group_size % scheme.group_size == 0
        and scheme.scale_dtype in (form.scale_dtype, "float32")
    )


def is_taken_over(checkpoint: Checkpoint, name: str, scheme: TensorScheme | None) -> bool:
    """Whether a tensor of the checkpoint is codes that a scheme can store exactly."""
    if scheme is None or not isinstance(checkpoint, HasCodes):
        return False
    form = checkpoint.codes(name)
    return form is not None and fits(form, scheme) and (scheme.zeros or not form.zeros)


def taken_over(
    checkpoint: Checkpoint,
    parameters: Sequence[Parameter],
    schemes: Mapping[str, TensorScheme | None],
) -> list[str]:
    """The parameters of which every row is taken over, in the model's order."""
    return [
        parameter.name
        for parameter in parameters
        if all(
            is_taken_over(checkpoint, source.name, schemes[parameter.name])
            for source in parameter.sources
        )
    ]


def take_over(
    checkpoint: Checkpoint, name: str, start: int, stop: int, scheme: TensorScheme
) -> QuantizedTensor:
    """Rows ``[start, stop)`` of a tensor for which :func:`is_taken_over` holds.

    Raises:
        BadRowError: a row has a scale that is NaN or infinite.
        CheckpointError: reading failed.
    """
    assert isinstance(checkpoint, HasCodes)
    found = checkpoint.code_rows(name, start, stop)
    bad = ~np.isfinite(found.scales)
    if bad.any():
        raise BadRowError(
            first_row(bad),
            "has a scale that is NaN or infinite",
            "the checkpoint is damaged, download it again",
        )
    scales, zeros = found.scales.astype(scheme.scale_dtype, copy=False), found.zeros
    parts = found.group_size // scheme.group_size
    if parts > 1:
        scales = np.repeat(scales, parts, axis=1)
        zeros = None if zeros is None else np.repeat(zeros, parts, axis=1)
    return QuantizedTensor(found.codes, scales, scheme.bits, zeros)
