"""What a model would take in each quantization scheme."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.errors import UsageError
from edgec.layouts.mlc import tensors
from edgec.layouts.specs import weight_bytes
from edgec.quantization.plan import tensor_schemes
from edgec.quantization.schemes import DEFAULT_GROUP_SIZE, SCHEMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgec.models.parameters import Parameter
    from edgec.quantization.schemes import FloatType


@dataclass(frozen=True)
class SchemeSize:
    """One scheme, with groups of the default size.

    Attributes:
        scheme: its name.
        description: one line for people.
        weights_bytes: of all weights; None if the scheme doesn't fit the model.
        bits_per_weight: scales included; None like ``weights_bytes``.
        kv_bytes_per_token: keys and values of one position in all layers.
        problem: why the scheme doesn't fit; empty if it does.
    """

    scheme: str
    description: str
    weights_bytes: int | None
    bits_per_weight: float | None
    kv_bytes_per_token: int
    problem: str = ""


def parameter_count(parameters: Sequence[Parameter]) -> int:
    """How many weights a model has."""
    return sum(math.prod(parameter.shape) for parameter in parameters)


def scheme_sizes(
    parameters: Sequence[Parameter], kv_bytes_per_token: Callable[[FloatType], int]
) -> list[SchemeSize]:
    """The sizes in every scheme that there is.

    Counted without the filling of tiles, which the layouts of some targets add.

    Args:
        parameters: of the model.
        kv_bytes_per_token: by the type of the activations.
    """
    count = parameter_count(parameters)
    sizes = []
    for scheme in SCHEMES.values():
        per_token = kv_bytes_per_token(scheme.dtype)
        try:
            schemes = tensor_schemes(parameters, scheme, DEFAULT_GROUP_SIZE)
        except UsageError as error:
            sizes.append(
                SchemeSize(scheme.name, scheme.description, None, None, per_token, str(error))
            )
            continue
        nbytes = weight_bytes(tensors(parameters, schemes, scheme.dtype))
        bits = round(8 * nbytes / count, 4)
        sizes.append(SchemeSize(scheme.name, scheme.description, nbytes, bits, per_token))
    return sizes
