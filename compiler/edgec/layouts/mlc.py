"""The layout of the MLC engines' group quantization (``_1``): 32-bit words, row by row.

A matrix ``(N, K)`` becomes ``q_weight``, uint32 ``(N, K * bits / 32)``, and ``q_scale``,
``(N, K / group size)``. Code ``i`` of a word stands at its bits ``[i * bits, (i + 1) * bits)``,
the lowest first, as an unsigned number ``q``, and the value of a weight is
``(q - largest code) * q_scale``.

The engines' own converter leaves the highest ``q`` unused: their numbers go from -7 to 7. Codes
here go from -8 to 7, so both are negated, ``q = largest code - code`` and ``q_scale = -scale``:
every code has its place in 0 to 15 (255), and the values are the same.

A matrix with zero points has a third tensor, ``q_zero``, uint32 ``(N, groups * bits / 32)`` rounded
up: the zero point ``z`` of each group, in words as codes are, with ``largest code - zero`` in place of
the zero point as well. The value of a weight then is ``(q - z) * q_scale``. The engines' own schemes of
this name have no such tensor; they load what a library's metadata lists, and hand it to the library.
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

    from edgec.layouts.find import StoredRows
    from edgec.models.parameters import Parameter
    from edgec.quantization.reader import QuantizedCheckpoint
    from edgec.quantization.schemes import FloatType, TensorScheme

WEIGHT = "q_weight"
SCALE = "q_scale"
ZERO = "q_zero"

_WORD_BITS = 32
# The largest code at the place of every code of a word.
_LARGEST = {4: np.uint32(0x77777777), 8: np.uint32(0x7F7F7F7F)}


def pack(tensor: QuantizedTensor) -> dict[str, npt.NDArray[Any]]:
    """Pack rows of a matrix.

    Returns:
        ``{"q_weight": uint32 (N, K * bits / 32), "q_scale": (N, K / group size)}``, and ``"q_zero":
        uint32 (N, groups * bits / 32)``, rounded up, if there are zero points.
    """
    stored = pack_nibbles(tensor.codes) if tensor.bits == 4 else tensor.codes.copy()
    words, scales = stored.view("<u4"), tensor.scales.copy()
    words_in_place(words, tensor.bits)
    scales_in_place(scales)
    packed = {WEIGHT: words, SCALE: scales}
    return (
        packed if tensor.zeros is None else {**packed, ZERO: zero_words(tensor.zeros, tensor.bits)}
    )


def unpack(
    words: npt.NDArray[np.uint32],
    scales: npt.NDArray[Any],
    bits: int,
    zeros: npt.NDArray[np.uint32] | None = None,
) -> QuantizedTensor:
    """The exact inverse of :func:`pack`.

    Args:
        words: ``(N, K * bits / 32)``.
        scales: ``(N, K / group size)``.
        bits: width of a code, 4 or 8.
        zeros: ``(N, groups * bits / 32)``, rounded up; None without zero points.
    """
    negated = np.array(scales, order="C")
    scales_in_place(negated)
    groups = scales.shape[1]
    points = None if zeros is None else np.ascontiguousarray(_signed(zeros, bits)[:, :groups])
    return QuantizedTensor(_signed(words, bits), negated, bits, points)


def zero_words(zeros: npt.NDArray[np.int8], bits: int) -> npt.NDArray[np.uint32]:
    """Zero points ``(N, groups)`` as words; the rest of the last word is zero points of 0."""
    rows, groups = zeros.shape
    padded = np.zeros((rows, zero_columns(groups, bits) * _WORD_BITS // bits), np.int8)
    padded[:, :groups] = zeros
    words = (pack_nibbles(padded) if bits == 4 else padded).view("<u4")
    words_in_place(words, bits)
    return words


def zero_columns(groups: int, bits: int) -> int:
    """Words for the zero points of a row."""
    return -(-groups * bits // _WORD_BITS)


def _signed(words: npt.NDArray[np.uint32], bits: int) -> npt.NDArray[np.int8]:
    """Unsigned numbers in words back to two's complement, one to a byte."""
    stored = np.array(words, "<u4", order="C")
    words_in_place(stored, bits)
    return unpack_nibbles(stored.view(np.uint8)) if bits == 4 else stored.view(np.int8)


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

    With zero points ``x.q_zero`` is the third. A plain parameter (``scheme`` None) keeps its name.
    """
    if scheme is None:
        return (parameter_name,)
    module, _, attribute = parameter_name.rpartition(".")
    assert attribute == "weight", parameter_name
    kinds = (WEIGHT, SCALE, ZERO) if scheme.zeros else (WEIGHT, SCALE)
    return tuple(f"{module}.{kind}" for kind in kinds)


def tensors(
    parameters: Sequence[Parameter],
    schemes: Mapping[str, TensorScheme | None],
    dtype: FloatType,
) -> list[TensorSpec]:
    """See :meth:`edgec.layouts.find.Layout.tensors`."""
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
        if scheme.zeros:
            zeros = (rows, zero_columns(groups[1], scheme.bits))
            specs.append(TensorSpec(names[2], zeros, "uint32", parameter.name))
    return specs


def stored_rows(
    quantized: QuantizedCheckpoint,
    spec: TensorSpec,
    start: int,
    stop: int,
    workspace: Workspace,
) -> npt.NDArray[Any]:
    """See :meth:`edgec.layouts.find.Layout.stored_rows`."""
    name, scheme = spec.parameter, quantized.scheme(spec.parameter)
    assert scheme is not None, name
    if spec.name.endswith(f".{ZERO}"):
        zeros = quantized.stored(f"{name}#zeros", start, stop, workspace)
        return zero_words(zeros, scheme.bits)
    if spec.name.endswith(f".{SCALE}"):
        scales = quantized.stored(f"{name}#scales", start, stop, workspace)
        scales_in_place(scales, workspace)
        return scales
    words = quantized.stored(f"{name}#codes", start, stop, workspace).view("<u4")
    words_in_place(words, scheme.bits)
    return words


def activation_group(_parameter: Parameter, _scheme: TensorScheme | None) -> int | None:
    """See :meth:`edgec.layouts.find.Layout.activation_group`."""
    return None


def quantized_rows(
    stored: StoredRows, parameter: Parameter, scheme: TensorScheme, start: int, stop: int
) -> QuantizedTensor:
    """See :meth:`edgec.layouts.find.Layout.quantized_rows`."""
    names = mlc_names(parameter.name, scheme)
    words, scales, *zeros = (stored(name, start, stop) for name in names)
    return unpack(words, scales, scheme.bits, *zeros)
