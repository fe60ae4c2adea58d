"""The layout of the MLC engines' group quantization (``_1``): 32-bit words, row by row.

A matrix ``(N, K)`` becomes ``q_weight``, uint32 ``(N, K * bits / 32)``, and ``q_scale``,
``(N, K / group size)``. Code ``i`` of a word stands at its bits ``[i * bits, (i + 1) * bits)``,
the lowest first, as the unsigned number ``code + largest code``: 0 to 14 for int4, 0 to 254 for
int8. The value of a weight is ``(unsigned - largest code) * scale``; there are no zero points.
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

_WORD_BITS = 32
# For every code of a word at once: the sign bits, and ones.
_SIGNS = {4: np.uint32(0x88888888), 8: np.uint32(0x80808080)}
_ONES = {4: np.uint32(0x11111111), 8: np.uint32(0x01010101)}


def pack(tensor: QuantizedTensor) -> dict[str, npt.NDArray[Any]]:
    """Pack rows of a matrix.

    Returns:
        ``{"q_weight": uint32 (N, K * bits / 32), "q_scale": (N, K / group size)}``.

    Raises:
        ValueError: the tensor has zero points, or a code of -8 (int4) or -128 (int8).
    """
    if tensor.zeros is not None:
        raise ValueError("the MLC layout has no zero points")
    stored = pack_nibbles(tensor.codes) if tensor.bits == 4 else tensor.codes.copy()
    words = stored.view("<u4")
    words_in_place(words, tensor.bits)
    return {WEIGHT: words, SCALE: tensor.scales}


def unpack(words: npt.NDArray[np.uint32], scales: npt.NDArray[Any], bits: int) -> QuantizedTensor:
    """The exact inverse of :func:`pack`.

    Args:
        words: ``(N, K * bits / 32)``.
        scales: ``(N, K / group size)``.
        bits: width of a code, 4 or 8.
    """
    stored = np.ascontiguousarray(words, "<u4") + _ONES[bits]
    stored ^= _SIGNS[bits]
    codes = unpack_nibbles(stored.view(np.uint8)) if bits == 4 else stored.view(np.int8)
    return QuantizedTensor(codes, scales, bits)


def words_in_place(
    words: npt.NDArray[np.uint32], bits: int, workspace: Workspace | None = None
) -> None:
    """Turn two's complement codes into unsigned ones, for all codes of a word at once.

    Flipping the sign bit adds 8 to a 4-bit code; then 1 is taken from each, which borrows from no
    neighbour as long as no code was -8. The same with 128 for 8 bits.

    Args:
        words: C-contiguous, of codes as a quantized checkpoint stores them; is overwritten.
        bits: width of a code, 4 or 8.
        workspace: scratch memory.

    Raises:
        ValueError: a code is -8 (int4) or -128 (int8), which this layout can't hold.
    """
    signs = _SIGNS[bits]
    words ^= signs
    before = (workspace or Workspace()).array("borrows", words.shape, "<u4")
    np.invert(words, out=before)
    words -= _ONES[bits]
    # A sign bit that was clear before and is set now is a borrow.
    before &= words
    before &= signs
    if before.any():
        raise ValueError(f"the MLC layout has no {bits}-bit code {-(1 << (bits - 1))}")


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
