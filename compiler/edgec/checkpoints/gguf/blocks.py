"""From GGUF's blocks of 32 elements, and from its floats, to float32.

A block is a float16 scale ``d``, in some types a float16 minimum ``m``, and codes. Nibbles: byte
``i`` holds element ``i`` below and element ``i + 16`` above. Fifth bits are one 32-bit word, bit
``i`` for element ``i``. Every product and sum is rounded to float32 once, in the order that the
format's reference takes, so that the values are the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Raw = NDArray[np.uint8]
    Out = NDArray[np.float32]

HALF = 16
BLOCK = 32


def float32(raw: Raw, out: Out) -> None:
    """F32: ``(n, 4)`` bytes to ``(n, 1)``."""
    out[:] = raw.view("<f4")


def float16(raw: Raw, out: Out) -> None:
    """F16: ``(n, 2)`` bytes to ``(n, 1)``."""
    out[:] = raw.view("<f2")


def bfloat16(raw: Raw, out: Out) -> None:
    """BF16: ``(n, 2)`` bytes to ``(n, 1)``; the upper half of the float32 of the same value."""
    bits = out.view(np.uint32)
    bits[:] = raw.view("<u2")
    np.left_shift(bits, 16, out=bits)


def q4_0(raw: Raw, out: Out) -> None:
    """Scale, 16 bytes of nibbles: ``d * (q - 8)``."""
    _nibbles(raw[:, 2:], out)
    out -= 8
    out *= halves(raw, 0)


def q4_1(raw: Raw, out: Out) -> None:
    """Scale, minimum, 16 bytes of nibbles: ``d * q + m``."""
    _nibbles(raw[:, 4:], out)
    out *= halves(raw, 0)
    out += halves(raw, 2)


def q5_0(raw: Raw, out: Out) -> None:
    """Scale, fifth bits, 16 bytes of nibbles: ``d * (q - 16)``."""
    _nibbles(raw[:, 6:], out)
    _fifth_bits(raw[:, 2:6], out)
    out -= 16
    out *= halves(raw, 0)


def q5_1(raw: Raw, out: Out) -> None:
    """Scale, minimum, fifth bits, 16 bytes of nibbles: ``d * q + m``."""
    _nibbles(raw[:, 8:], out)
    _fifth_bits(raw[:, 4:8], out)
    out *= halves(raw, 0)
    out += halves(raw, 2)


def q8_0(raw: Raw, out: Out) -> None:
    """Scale, 32 signed bytes: ``d * q``."""
    out[:] = raw[:, 2:].view(np.int8)
    out *= halves(raw, 0)


def q4_0_codes(raw: Raw, codes: NDArray[np.int8]) -> None:
    """The codes ``q - 8`` of Q4_0's blocks, ``(n, 32)``."""
    packed = raw[:, 2:].view(np.int8)
    np.bitwise_and(packed, 0x0F, out=codes[:, :HALF])
    np.right_shift(raw[:, 2:], 4, out=codes[:, HALF:].view(np.uint8))
    codes -= 8


def q5_0_codes(raw: Raw, codes: NDArray[np.int8]) -> None:
    """The codes ``q - 16`` of Q5_0's blocks, ``(n, 32)``."""
    packed = raw[:, 6:]
    np.bitwise_and(packed, 0x0F, out=codes[:, :HALF].view(np.uint8))
    np.right_shift(packed, 4, out=codes[:, HALF:].view(np.uint8))
    bits = np.unpackbits(np.ascontiguousarray(raw[:, 2:6]), axis=1, bitorder="little")
    codes |= (bits << np.uint8(4)).view(np.int8)
    codes -= 16


def q8_0_codes(raw: Raw, codes: NDArray[np.int8]) -> None:
    """The codes of Q8_0's blocks, ``(n, 32)``."""
    codes[:] = raw[:, 2:].view(np.int8)


def halves(raw: Raw, offset: int) -> NDArray[np.float32]:
    """The float16 number at a byte of every block as float32, ``(n, 1)``."""
    return stored_halves(raw, offset).astype(np.float32)


def stored_halves(raw: Raw, offset: int) -> NDArray[Any]:
    """The float16 number at a byte of every block, ``(n, 1)``."""
    return np.ascontiguousarray(raw[:, offset : offset + 2]).view("<f2")


def _nibbles(packed: Raw, out: Out) -> None:
    np.copyto(out[:, :HALF], packed & np.uint8(0x0F))
    np.copyto(out[:, HALF:], packed >> np.uint8(4))


def _fifth_bits(packed: Raw, out: Out) -> None:
    bits = np.unpackbits(packed, axis=1, bitorder="little")
    out += bits << np.uint8(4)
