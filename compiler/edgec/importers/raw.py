"""What a translation gives, before it is normalized: a function with its weights as constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.importers.imported import TensorType

TRANSPOSED = ".T"
"""Ends the names of parameters that the source has the other way round."""


@dataclass(frozen=True)
class RawModel:
    """A translated model.

    Attributes:
        mod: an IRModule whose function ``main`` takes the inputs and has all weights inside.
        inputs: their types as they are to be, under the names they are to have.
        outputs: names of the outputs.
        bounds: the largest size of each dimension that varies.
        names: of weights, by :func:`constant_key` of their constants.
    """

    mod: Any
    inputs: tuple[TensorType, ...]
    outputs: tuple[str, ...]
    bounds: Mapping[str, int]
    names: Mapping[tuple[int, tuple[int, ...]], str]


def constant_key(tensor: Any) -> tuple[int, tuple[int, ...]]:
    """What identifies a constant's value while it lives: where it is and its shape."""
    return int(tensor.data_ptr()), tuple(int(size) for size in tensor.shape)
