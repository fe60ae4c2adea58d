from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgec.parallel import Workspace
from edgec.quantization.nibbles import pack_nibbles, unpack_nibbles
from edgec.quantization.tensors import QuantizedTensor

Array = npt.NDArray[Any]


SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 9).map(lambda half: 2 * half))
INT4 = hnp.arrays(np.int8, SHAPES, elements=st.integers(-8, 7))


@given(INT4)
def test_nibbles_come_back(codes: Array) -> None:
    before = codes.copy()
    packed = pack_nibbles(codes)
    assert packed.shape == (codes.shape[0], codes.shape[1] // 2)
    np.testing.assert_array_equal(unpack_nibbles(packed), codes)
    np.testing.assert_array_equal(codes, before)


@given(INT4)
def test_nibbles_bit_by_bit(codes: Array) -> None:
    packed = pack_nibbles(codes, Workspace()).tolist()
    for row, line in enumerate(codes.tolist()):
        for column, code in enumerate(line):
            nibble = packed[row][column // 2] >> (4 * (column % 2)) & 15
            assert (nibble - 16 if nibble >= 8 else nibble) == code


def test_dequantize_with_and_without_zero_points() -> None:
    codes = np.array([[1, -2, 3, 4], [0, 7, -8, 5]], np.int8)
    scales = np.array([[0.5, 2], [0.25, 1]], np.float16)
    plain = QuantizedTensor(codes, scales, 4)
    assert plain.group_size == 2
    assert plain.dequantize().tolist() == [[0.5, -1, 6, 8], [0, 1.75, -8, 5]]
    assert plain.dequantize().dtype == np.float32
    zeros = np.array([[1, 0], [-100, 127]], np.int8)
    shifted = QuantizedTensor(codes, scales, 8, zeros)
    assert shifted.dequantize().tolist() == [[0, -1.5, 6, 8], [25, 26.75, -135, -122]]
