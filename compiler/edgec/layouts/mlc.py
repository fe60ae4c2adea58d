"""The layout of the MLC engines' group quantization (``_1``): 32-bit words, row by row.

A matrix ``(N, K)`` becomes ``q_weight``, uint32 ``(N, K * bits / 32)``, and ``q_scale``,
``(N, K / group size)``. Code ``i`` of a word stands at its bits ``[i * bits, (i + 1) * bits)``,
the lowest first, as an unsigned number ``q``, and the value of a weight is
``(q - largest code) * q_scale``; there are no zero points.

The engines' own converter leaves the highest ``q`` unused: their numbers go from -7 to 7. Codes
here go from -8 to 7, so both are negated, ``q = largest code - code`` and ``q_scale = -scale``:
every code has its place in 0 to 15 (255), and the values are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.layouts.specs import TensorSpec
from edgec.parallel import Workspace
from edgec.quantization.nibbles import pack_nibbles, unpack_nibbles
from edgec.quantization.tensors import QuantizedTensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgec.models.parameters import Parameter
    from edgec.quantization.schemes import FloatType, TensorScheme

WEIGHT = "q_weight"
SCALE = "q_scale"
NO_ZEROS = "the MLC layout has no zero points"

_WORD_BITS = 32
# The largest code at the place of every code of a word.
_LARGEST = {4: np.uint32(0x77777777), 8: np.uint32(0x7F7F7F7F)}


def pack(tensor: QuantizedTensor) -> dict[str, npt.NDArray[Any]]:
    """Pack rows of a matrix.

    Returns:
        ``{"q_weight": uint32 (N, K * bits / 32), "q_scale": (N, K / group size)}``.

    Raises:
        ValueError: the tensor has zero points.
    """
    if tensor.zeros is not None:
        raise ValueError(NO_ZEROS)
    stored = pack_nibbles(tensor.codes) if tensor.bits == 4 else tensor.codes.copy()
    words, scales = stored.view("<u4"), tensor.scales.copy()
    words_in_place(words, tensor.bits)
    scales_in_place(scales)
    return {WEIGHT: words, SCALE: scales}


def unpack(words: npt.NDArray[np.uint32], scales: npt.NDArray[Any], bits: int) -> QuantizedTensor:
    """The exact inverse of :func:`pack`.

    Args:
        words: ``(N, K * bits / 32)``.
        scales: ``(N, K / group size)``.
        bits: width of a code, 4 or 8.
    """
    stored, negated = np.array(words, "<u4", order="C"), np.array(scales, order="C")
    words_in_place(stored, bits)
    scales_in_place(negated)
    codes = unpack_nibbles(stored.view(np.uint8)) if bits == 4 else stored.view(np.int8)
    return QuantizedTensor(codes, negated, bits)


def words_in_place(words: npt.NDArray[np.uint32], bits: int) -> None:
    """Turn two's complement codes into ``largest code - code``, or back.

    In two's complement ``-1 - code`` is the code with every bit flipped, and ``largest code + 1``
    more is its highest bit flipped back. So no code touches its neighbours.

    Args:
        words: of codes as a quantized checkpoint stores them; is overwritten.
        bits: width of a code, 4 or 8.
    """
    words ^= _LARGEST[bits]


def scales_in_place(scales: npt.NDArray[Any], workspace: Workspace | None = None) -> None:
    """Negate scales of any float type, but leave zeros positive.

    Args:
        scales: C-contiguous; is overwritten.
        workspace: scratch memory.
    """
    # numpy compares float16 numbers one by one, but integers many at a time.
    nonzero = (workspace or Workspace()).array("nonzero scales", scales.shape, np.bool_)
    np.not_equal(scales.view(f"u{scales.itemsize}"), 0, out=nonzero)
    np.negative(scales, out=scales, where=nonzero)


def mlc_names(parameter_name: str, scheme: TensorScheme | None) -> tuple[str, ...]:
    """The stored names of a parameter: ``x.weight`` -> ``x.q_weight``, ``x.q_scale``.

    A plain parameter (``scheme`` None) keeps its name.
    """
    if scheme is None:
        return (parameter_name,)
    module, _, attribute = parameter_name.rpartition(".")
    assert attribute == "weight", parameter_name
    return (f"{module}.{WEIGHT}", f"{module}.{SCALE}")


def tensors(
    parameters: Sequence[Parameter],
    schemes: Mapping[str, TensorScheme | None],
    dtype: FloatType,
) -> list[TensorSpec]:
    """The tensors of a model in this layout, in the order of its metadata and of its shards.

    Args:
        parameters: of the model.
        schemes: by parameter name; None is plain.
        dtype: of the plain parameters.
    """
    specs = []
    for parameter in parameters:
        scheme = schemes[parameter.name]
        names = mlc_names(parameter.name, scheme)
        if scheme is None:
            specs.append(TensorSpec(names[0], parameter.shape, dtype, parameter.name))
            continue
        rows, columns = parameter.shape
        words = (rows, columns * scheme.bits // _WORD_BITS)
        groups = (rows, columns // scheme.group_size)
        specs.append(TensorSpec(names[0], words, "uint32", parameter.name))
        specs.append(TensorSpec(names[1], groups, scheme.scale_dtype, parameter.name))
    return specs
