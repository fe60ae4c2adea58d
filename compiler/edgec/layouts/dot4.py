"""The layout of integer dot products on CPUs: tiles of 16 rows, four columns to a 32-bit lane.

A matrix ``(N, K)`` becomes ``T = ceil(N / 16)`` tiles. ``q_weight`` is uint32 ``(T, K * bits / 32, 16)``:
element ``[t, b, r]`` belongs to row ``16 t + r``, so that 64 bytes are 16 rows times the columns of
one word. That is what the instructions read that multiply four bytes of every lane with four
broadcast activations: x86's ``vpdpbusd``, Arm's ``sdot`` by element and, four words together, a tile
of AMX.

* 8 bits: byte ``i`` of the word has the code of column ``4 b + i``.
* 4 bits: byte ``i`` of the word has the code of column ``8 b + i`` in its low half and that of
  ``8 b + 4 + i`` in its high half: one mask and one shift give bytes in the order of the columns.

Codes are stored as unsigned numbers ``u = code + 8`` (128 with 8 bits). ``q_scale`` is ``(T, groups, 16)``.
``q_zero``, only there if groups have zero points, holds ``z = zero + 8`` (128) of a tile's 16 rows for
each group: with 8 bits uint32 ``(T, groups, 4)``, byte ``i`` of word ``w`` for row ``4 w + i``; with 4 bits
uint32 ``(T, groups, 2)``, bits ``[4 i, 4 i + 4)`` of word ``w`` for row ``2 i + w``: both words of a group
broadcast over 16 lanes and shifted by four times half the lane have each lane's zero point. The
value of a weight is ``(u - z) * q_scale``, ``z = 8`` (128) without zero points.

Rows of the last tile beyond ``N`` have scales of 0, ``u = 8`` and ``z = 8`` (128).

The matrices of experts lie one after the other, so that each begins with a tile of its own where an
expert's rows are a multiple of 16. Where they aren't, they are stored as in :mod:`edgec.layouts.mlc`,
as are matrices whose groups aren't multiples of 32 columns, and those that no decoding step reads, such
as a vision tower's. Tensors of three axes are tiles, those of two aren't.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.layouts import mlc
from edgec.layouts.mlc import SCALE, WEIGHT, ZERO
from edgec.parallel import Workspace
from edgec.quantization.nibbles import pack_nibbles, unpack_nibbles
from edgec.quantization.tensors import QuantizedTensor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgec.layouts.find import StoredRows
    from edgec.layouts.specs import TensorSpec
    from edgec.models.parameters import Parameter
    from edgec.quantization.reader import QuantizedCheckpoint
    from edgec.quantization.schemes import FloatType, TensorScheme

TILE = 16
"""Rows of a tile."""
GROUP_MULTIPLE = 32
"""Groups of columns are multiples of this, so that a group is whole steps of every kernel."""

_WORD_BITS = 32
# The middle of the codes, u = 8 or 128, at the place of every code of a word.
_MIDDLE = {4: np.uint32(0x88888888), 8: np.uint32(0x80808080)}


def tiled(parameter: Parameter, scheme: TensorScheme | None) -> bool:
    """Whether a parameter is stored in tiles."""
    if scheme is None or scheme.group_size % GROUP_MULTIPLE != 0:
        return False
    if parameter.decode_rows is None:
        return True
    rows, rest = divmod(parameter.shape[0], parameter.matrices)
    assert rest == 0, parameter.name
    return parameter.decode_rows > 0 and rows % TILE == 0


def tensors(
    parameters: Sequence[Parameter],
    schemes: Mapping[str, TensorScheme | None],
    dtype: FloatType,
) -> list[TensorSpec]:
    """See :meth:`edgec.layouts.find.Layout.tensors`."""
    specs = []
    for parameter in parameters:
        scheme = schemes[parameter.name]
        plain = mlc.tensors([parameter], schemes, dtype)
        if scheme is None or not tiled(parameter, scheme):
            specs += plain
            continue
        rows, columns = parameter.shape
        tiles, groups = -(-rows // TILE), columns // scheme.group_size
        shapes = (
            (tiles, columns * scheme.bits // _WORD_BITS, TILE),
            (tiles, groups, TILE),
            (tiles, groups, zero_words(scheme.bits)),
        )
        specs += [
            replace(spec, shape=shape, tile=TILE)
            for spec, shape in zip(plain, shapes, strict=False)
        ]
    return specs


def zero_words(bits: int) -> int:
    """Words for the zero points of a tile's rows, of one group."""
    return TILE * bits // _WORD_BITS


def stored_rows(
    quantized: QuantizedCheckpoint,
    spec: TensorSpec,
    start: int,
    stop: int,
    workspace: Workspace,
) -> npt.NDArray[Any]:
    """See :meth:`edgec.layouts.find.Layout.stored_rows`."""
    if spec.tile == 1:
        return mlc.stored_rows(quantized, spec, start, stop, workspace)
    name, scheme = spec.parameter, quantized.scheme(spec.parameter)
    assert scheme is not None, name
    first, last = TILE * start, min(TILE * stop, quantized.shape(name)[0])
    if spec.name.endswith(f".{SCALE}"):
        scales = quantized.stored(f"{name}#scales", first, last, workspace)
        return _in_tiles(scales, 0, workspace)
    if spec.name.endswith(f".{ZERO}"):
        zeros = quantized.stored(f"{name}#zeros", first, last, workspace)
        return zeros_in_tiles(zeros, scheme.bits)
    stored = quantized.stored(f"{name}#codes", first, last, workspace)
    return _words_in_tiles(stored, scheme.bits, workspace)


def pack(tensor: QuantizedTensor) -> dict[str, npt.NDArray[Any]]:
    """Pack a matrix, or rows of one from a multiple of 16 on.

    Returns:
        ``{"q_weight": uint32 (T, K * bits / 32, 16), "q_scale": (T, K / group size, 16)}``, and
        ``"q_zero": uint32 (T, K / group size, bits / 2)`` if there are zero points.
    """
    stored = pack_nibbles(tensor.codes) if tensor.bits == 4 else tensor.codes.copy()
    packed = {
        WEIGHT: _words_in_tiles(stored, tensor.bits, Workspace()),
        SCALE: _in_tiles(tensor.scales, 0, Workspace()),
    }
    if tensor.zeros is not None:
        packed[ZERO] = zeros_in_tiles(tensor.zeros, tensor.bits)
    return packed


def unpack(
    words: npt.NDArray[np.uint32],
    scales: npt.NDArray[Any],
    bits: int,
    zeros: npt.NDArray[np.uint32] | None = None,
) -> QuantizedTensor:
    """The inverse of :func:`pack`, with the rows of whole tiles.

    Args:
        words: ``(T, K * bits / 32, 16)``.
        scales: ``(T, K / group size, 16)``.
        bits: width of a code, 4 or 8.
        zeros: ``(T, K / group size, bits / 2)``; None without zero points.
    """
    stored = _in_rows(words) ^ _MIDDLE[bits]
    if bits == 4:
        _swap(stored, 4, 0x00F000F0, Workspace())
        _swap(stored, 8, 0x0000FF00, Workspace())
        codes = unpack_nibbles(stored.view(np.uint8))
    else:
        codes = stored.view(np.int8)
    points = None if zeros is None else _zeros_in_rows(zeros, bits)
    return QuantizedTensor(codes, _in_rows(scales), bits, points)


def quantized_rows(
    stored: StoredRows, parameter: Parameter, scheme: TensorScheme, start: int, stop: int
) -> QuantizedTensor:
    """See :meth:`edgec.layouts.find.Layout.quantized_rows`."""
    if not tiled(parameter, scheme):
        return mlc.quantized_rows(stored, parameter, scheme, start, stop)
    first = start // TILE
    names = mlc.mlc_names(parameter.name, scheme)
    words, scales, *zeros = (stored(name, first, -(-stop // TILE)) for name in names)
    whole = unpack(words, scales, scheme.bits, *zeros)
    wanted = slice(start - TILE * first, stop - TILE * first)
    return QuantizedTensor(
        whole.codes[wanted],
        whole.scales[wanted],
        scheme.bits,
        None if whole.zeros is None else whole.zeros[wanted],
    )


def activation_group(parameter: Parameter, scheme: TensorScheme | None) -> int | None:
    """See :meth:`edgec.layouts.find.Layout.activation_group`: the groups of the weights."""
    return scheme.group_size if scheme is not None and tiled(parameter, scheme) else None


def zeros_in_tiles(zeros: npt.NDArray[np.int8], bits: int) -> npt.NDArray[np.uint32]:
    """Zero points ``(N, groups)`` as words ``(T, groups, bits / 2)``."""
    unsigned = _in_tiles(zeros, 0, Workspace()).view(np.uint8) ^ np.uint8(1 << (bits - 1))
    if bits == 8:
        return unsigned.view("<u4")
    # Rows 4 i to 4 i + 3 are four bytes. Byte i of word 0 has the first and the third of them in its
    # halves, that of word 1 the second and the fourth: first both bytes side by side, i after i.
    four = unsigned.view("<u4") & np.uint32(0x0F0F0F0F)
    pairs = (four | four >> np.uint32(12)).astype("<u2").view("<u8")
    _swap(pairs, 8, 0x0000FF000000FF00, Workspace())
    _swap(pairs, 16, 0x00000000FFFF0000, Workspace())
    return pairs.view("<u4")


def _zeros_in_rows(zeros: npt.NDArray[np.uint32], bits: int) -> npt.NDArray[np.int8]:
    """Words ``(T, groups, bits / 2)`` as zero points ``(16 T, groups)``."""
    tiles, groups, _ = zeros.shape
    unsigned = np.ascontiguousarray(zeros, "<u4").view(np.uint8)
    if bits == 4:
        halves = unsigned.reshape(tiles, groups, 2, 4).transpose(0, 1, 3, 2)
        both = np.stack([halves & np.uint8(15), halves >> np.uint8(4)], axis=3)
        unsigned = both.reshape(tiles, groups, TILE)
    signed = unsigned.view(np.int8) - np.int8(8) if bits == 4 else unsigned ^ np.uint8(0x80)
    return _in_rows(signed.view(np.int8))


def _words_in_tiles(
    stored: npt.NDArray[Any], bits: int, workspace: Workspace
) -> npt.NDArray[np.uint32]:
    """Codes as a quantized checkpoint holds them, which are overwritten, as words in tiles."""
    words = stored.view("<u4")
    if bits == 4:
        _swap(words, 8, 0x0000FF00, workspace)
        _swap(words, 4, 0x00F000F0, workspace)
    # Two's complement plus the middle is the highest bit flipped.
    np.bitwise_xor(words, _MIDDLE[bits], out=words)
    return _in_tiles(words, _MIDDLE[bits], workspace)


def _swap(words: npt.NDArray[Any], distance: int, mask: int, workspace: Workspace) -> None:
    """Swap the bits of a mask with those ``distance`` above them, in every word.

    Of eight codes, 0 to 7 from the lowest bits on, a swap of codes 2 and 3 with 4 and 5 and then one of
    neighbours gives 0 4 1 5 2 6 3 7: the codes of the first half in the low halves of the bytes.
    """
    number = words.dtype.type
    changed = workspace.array("dot4 swap", words.shape, words.dtype)
    np.right_shift(words, number(distance), out=changed)
    np.bitwise_xor(changed, words, out=changed)
    np.bitwise_and(changed, number(mask), out=changed)
    np.bitwise_xor(words, changed, out=words)
    np.left_shift(changed, number(distance), out=changed)
    np.bitwise_xor(words, changed, out=words)


def _in_tiles(
    rows: npt.NDArray[Any], beyond: int | np.uint32, workspace: Workspace
) -> npt.NDArray[Any]:
    """``(N, C)`` as ``(T, C, 16)``, in the workspace; rows beyond the last one are ``beyond``."""
    count, columns = rows.shape
    whole, rest = divmod(count, TILE)
    tiles = workspace.array("dot4 tiles", (whole + bool(rest), columns, TILE), rows.dtype)
    np.copyto(tiles[:whole], rows[: TILE * whole].reshape(whole, TILE, columns).transpose(0, 2, 1))
    if rest:
        tiles[whole] = beyond
        tiles[whole, :, :rest] = rows[TILE * whole :].T
    return tiles


def _in_rows(tiles: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """``(T, C, 16)`` as ``(16 T, C)``, a new array."""
    count, columns, _ = tiles.shape
    return np.ascontiguousarray(tiles.transpose(0, 2, 1)).reshape(TILE * count, columns)
