"""The quantization schemes: named combinations of code width and float type.

The names are those of the MLC engines: ``q<bits>f<float bits>_<variant>``. Variant 1 groups the
weights along the input axis and stores them row by row, ``(out, in)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from edgec.errors import UsageError
from edgec.suggest import instead_of

if TYPE_CHECKING:
    from collections.abc import Mapping

FloatType = Literal["float16", "float32"]

DEFAULT_GROUP_SIZE = 32


@dataclass(frozen=True)
class TensorScheme:
    """How one quantized matrix is stored.

    Attributes:
        bits: width of a code, 4 or 8.
        group_size: neighbouring weights of a row that share a scale.
        scale_dtype: the type of the scales.
        zeros: whether groups have zero points: where a checkpoint's codes are taken over with them.
    """

    bits: int
    group_size: int
    scale_dtype: FloatType
    zeros: bool = False

    @property
    def largest_code(self) -> int:
        """The largest code: 7 for int4, 127 for int8."""
        return (1 << (self.bits - 1)) - 1

    @property
    def lowest_code(self) -> int:
        """The lowest code, of the largest magnitude: -8 for int4, -128 for int8."""
        return -(1 << (self.bits - 1))


@dataclass(frozen=True)
class Scheme:
    """How a whole model is stored.

    Attributes:
        name: as written in recipes and in the model's configuration.
        bits: width of the codes of matrices; 0 when nothing is quantized.
        dtype: the type of activations, of plain tensors and of scales.
        description: one line for people.
    """

    name: str
    bits: int
    dtype: FloatType
    description: str


SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {
        scheme.name: scheme
        for scheme in (
            Scheme("q0f32", 0, "float32", "not quantized, float32"),
            Scheme("q0f16", 0, "float16", "not quantized, float16"),
            Scheme("q4f16_1", 4, "float16", "4-bit weights, float16 scales and activations"),
            Scheme("q4f32_1", 4, "float32", "4-bit weights, float32 scales and activations"),
            Scheme("q8f16_1", 8, "float16", "8-bit weights, float16 scales and activations"),
            Scheme("q8f32_1", 8, "float32", "8-bit weights, float32 scales and activations"),
        )
    }
)


def find_scheme(name: str) -> Scheme:
    """The scheme of this name.

    Raises:
        UsageError: there is none; the message lists those that exist.
    """
    if name in SCHEMES:
        return SCHEMES[name]
    raise UsageError(
        f"there is no quantization scheme {name!r}",
        where="quantization.scheme",
        remedy=instead_of(name, SCHEMES, noun="schemes"),
    )


def with_floats(name: str, dtype: FloatType) -> str:
    """The scheme that stores codes like another one and computes with floats of a given type.

    Raises:
        UsageError: there is no scheme ``name``.
    """
    scheme = find_scheme(name)
    return next(
        other.name
        for other in SCHEMES.values()
        if (other.bits, other.dtype) == (scheme.bits, dtype)
    )
