"""Two 4-bit codes in one byte: the low nibble first, two's complement."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgec.parallel import Workspace


def pack_nibbles(
    codes: npt.NDArray[np.int8], workspace: Workspace | None = None
) -> npt.NDArray[np.uint8]:
    """Pack ``(N, K)`` int8 codes of [-8, 7], K even, into ``(N, K / 2)`` bytes.

    With a workspace the result lies in it, and lives until the next call.
    """
    assert codes.flags.c_contiguous
    workspace = workspace or Workspace()
    rows, columns = codes.shape
    # A pair of codes as one 16-bit number: 0xhhll -> 0x..hl. Whole-array operations on pairs are
    # several times as fast as operations on every other byte.
    pairs = codes.view("<u2")
    high = workspace.array("nibbles high", pairs.shape, "<u2")
    low = workspace.array("nibbles low", pairs.shape, "<u2")
    np.right_shift(pairs, 4, out=high)
    np.bitwise_and(high, 0xF0, out=high)
    np.bitwise_and(pairs, 0x0F, out=low)
    np.bitwise_or(low, high, out=low)
    packed = workspace.array("nibbles packed", (rows, columns // 2), np.uint8)
    np.copyto(packed, low, casting="unsafe")
    return packed


def unpack_nibbles(packed: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """The inverse: ``(N, K / 2)`` bytes to ``(N, K)`` int8 codes, sign-extended."""
    rows, half = packed.shape
    codes = np.empty((rows, half, 2), np.int8)
    signed = packed.view(np.int8)
    np.right_shift(np.left_shift(signed, 4), 4, out=codes[..., 0])
    np.right_shift(signed, 4, out=codes[..., 1])
    return codes.reshape(rows, half * 2)
