"""From a weight folder back to floats: what the compiled model computes with."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edgec.layouts.parts import part_name

if TYPE_CHECKING:
    from typing import Any

    import numpy.typing as npt

    from edgec.layouts.find import Layout
    from edgec.layouts.tensor_cache import TensorCache
    from edgec.models.parameters import Parameter
    from edgec.quantization.schemes import TensorScheme


def unpacked_rows(
    layout: Layout,
    cache: TensorCache,
    parameter: Parameter,
    scheme: TensorScheme | None,
    start: int,
    stop: int,
) -> npt.NDArray[np.float32]:
    """Rows ``[start, stop)`` of a parameter as float32 ``(stop - start, *shape[1:])``.

    A quantized weight is ``(code - zero) * scale``, rounded once to float32 (not to the scales' type).

    Args:
        layout: of the weights.
        cache: the shipped weights.
        parameter: one of the model's.
        scheme: how it is stored; None when it is plain.
        start: the first row (element of a 1-D parameter).
        stop: the row after the last one.

    Raises:
        CheckpointError: the folder lacks the parameter.
    """
    stored = partial(_rows, cache)
    if scheme is None:
        return stored(parameter.name, start, stop).astype(np.float32)
    return layout.quantized_rows(stored, parameter, scheme, start, stop).dequantize()


def _rows(cache: TensorCache, name: str, start: int, stop: int) -> npt.NDArray[Any]:
    """Rows of a stored tensor, which may lie there in parts."""
    if name in cache or part_name(name, 0) not in cache:
        return cache.array(name)[start:stop]
    found, first, index = [], 0, 0
    while (part := part_name(name, index)) in cache:
        rows = cache.array(part)
        found.append(rows[max(0, start - first) : max(0, stop - first)])
        first, index = first + len(rows), index + 1
    return np.concatenate(found)
