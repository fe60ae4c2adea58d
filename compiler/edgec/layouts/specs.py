"""The tensors of a weight folder, as data: what the compiler, the packer and the reader agree on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class TensorSpec:
    """One tensor as it is stored.

    Attributes:
        name: such as ``"lm_head.q_weight"``.
        shape: of the stored array.
        dtype: numpy's name: ``"uint32"``, ``"float16"``, ``"float32"``.
        parameter: name of the model's parameter that it is a part of: ``"lm_head.weight"``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parameter: str


def nbytes(spec: TensorSpec) -> int:
    """Size of the stored array in bytes."""
    return math.prod(spec.shape) * np.dtype(spec.dtype).itemsize


def weight_bytes(specs: Iterable[TensorSpec]) -> int:
    """Size of all weights in bytes, on disk and in a device's memory."""
    return sum(nbytes(spec) for spec in specs)
