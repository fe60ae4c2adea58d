"""The tensors of a weight folder, as data: what the compiler, the packer and the reader agree on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgec.models.parameters import Parameter


@dataclass(frozen=True)
class TensorSpec:
    """One tensor as it is stored.

    Attributes:
        name: such as ``"lm_head.q_weight"``.
        shape: of the stored array.
        dtype: numpy's name: ``"uint32"``, ``"float16"``, ``"float32"``.
        parameter: name of the model's parameter that it is a part of: ``"lm_head.weight"``.
        first_row: of the parameter that it holds; not 0 only in tables that are stored in parts.
        tile: rows of the parameter in one row of the stored array, of the last one perhaps fewer.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameter: str
    first_row: int = 0
    tile: int = 1


def nbytes(spec: TensorSpec) -> int:
    """Size of the stored array in bytes."""
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def weight_bytes(specs: Iterable[TensorSpec]) -> int:
    """Size of all weights in bytes, on disk and in a device's memory."""
    return sum(nbytes(spec) for spec in specs)


def decode_bytes(specs: Iterable[TensorSpec], parameters: Sequence[Parameter]) -> int:
    """Bytes of the weights that a decode step reads whole.

    Of a table of embeddings it reads one row, unless the table is the head as well; of experts
    those that one token goes through.

    Args:
        specs: the stored tensors.
        parameters: of the model.
    """
    by_name = {parameter.name: parameter for parameter in parameters}
    tied = all(parameter.role != "head" for parameter in parameters)

    def read(spec: TensorSpec) -> int:
        parameter = by_name[spec.parameter]
        if parameter.role == "embedding" and not tied:
            return 0
        if parameter.decode_rows is None:
            return nbytes(spec)
        return nbytes(spec) * parameter.decode_rows // parameter.shape[0]

    return sum(map(read, specs))
