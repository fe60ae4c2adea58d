from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantization_fakes import parameter

from edgec.layouts.mlc import mlc_names, pack, tensors, unpack
from edgec.layouts.specs import TensorSpec, nbytes, weight_bytes
from edgec.quantization.methods import rtn
from edgec.quantization.schemes import TensorScheme
from edgec.quantization.tensors import QuantizedTensor


@st.composite
def tensors_of_any_kind(draw: st.DrawFn) -> QuantizedTensor:
    bits = draw(st.sampled_from([4, 8]))
    group = draw(st.sampled_from([8, 16, 24, 32, 128]))
    rows, groups = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    scale_dtype = draw(st.sampled_from(["float16", "float32"]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    largest = (1 << (bits - 1)) - 1
    codes = random.integers(-largest, largest + 1, (rows, groups * group)).astype(np.int8)
    scales = random.random((rows, groups)).astype(scale_dtype)
    return QuantizedTensor(codes, scales, bits)


@given(tensors_of_any_kind())
def test_unpack_is_the_exact_inverse(tensor: QuantizedTensor) -> None:
    before = tensor.codes.copy()
    packed = pack(tensor)
    found = unpack(packed["q_weight"], packed["q_scale"], tensor.bits)
    np.testing.assert_array_equal(found.codes, tensor.codes)
    np.testing.assert_array_equal(found.scales, tensor.scales)
    assert found.scales.dtype == tensor.scales.dtype
    np.testing.assert_array_equal(tensor.codes, before)


@given(tensors_of_any_kind())
def test_words_bit_by_bit(tensor: QuantizedTensor) -> None:
    packed = pack(tensor)
    words, scales = packed["q_weight"], packed["q_scale"]
    rows, columns = tensor.codes.shape
    per_word, largest = 32 // tensor.bits, (1 << (tensor.bits - 1)) - 1
    assert words.dtype == np.uint32
    assert words.shape == (rows, columns // per_word)
    values = np.empty((rows, columns))
    for row in range(rows):
        for column in range(columns):
            word = int(words[row, column // per_word])
            unsigned = word >> (column % per_word * tensor.bits) & ((1 << tensor.bits) - 1)
            assert unsigned <= 2 * largest
            scale = float(scales[row, column // tensor.group_size])
            values[row, column] = (unsigned - largest) * scale
    np.testing.assert_array_equal(values.astype(np.float32), tensor.dequantize())


@pytest.mark.parametrize("bits", [4, 8])
def test_the_most_negative_code_is_refused_in_every_place(bits: int) -> None:
    largest = (1 << (bits - 1)) - 1
    for place in range(16):
        codes = np.full((2, 16), -largest, np.int8)
        scales = np.ones((2, 1), np.float16)
        pack(QuantizedTensor(codes, scales, bits))
        codes[1, place] -= 1
        with pytest.raises(ValueError, match=f"no {bits}-bit code {-largest - 1}"):
            pack(QuantizedTensor(codes, scales, bits))


def test_zero_points_are_refused() -> None:
    codes, scales = np.zeros((1, 8), np.int8), np.ones((1, 1), np.float16)
    with pytest.raises(ValueError, match="zero points"):
        pack(QuantizedTensor(codes, scales, 4, np.zeros((1, 1), np.int8)))


def test_packed_weights_are_those_of_the_formula_from_the_weights() -> None:
    # scale = max|w| / 7, q = round(w / scale + 7), value = (q - 7) * scale: float64, no ties here.
    weight = np.random.default_rng(3).standard_normal((8, 64), np.float32)
    packed = pack(rtn.quantize(weight, TensorScheme(4, 32, "float32")))
    groups = weight.astype(np.float64).reshape(8, 2, 32)
    scale = (np.abs(groups).max(axis=-1) / 7).astype(np.float32).astype(np.float64)
    q = np.clip(np.round(groups / scale[..., None] + 7), 0, 14).astype(np.uint64).reshape(8, 8, 8)
    words = (q << (4 * np.arange(8, dtype=np.uint64))).sum(axis=-1)
    np.testing.assert_array_equal(packed["q_weight"], words)
    np.testing.assert_array_equal(packed["q_scale"], scale)


def test_specs_follow_the_parameters() -> None:
    parameters = [
        parameter("embed.weight", (50, 64), "embedding"),
        parameter("norm.weight", (64,), "norm"),
        parameter("x.proj.weight", (10, 128)),
    ]
    schemes = {
        "embed.weight": TensorScheme(4, 32, "float16"),
        "norm.weight": None,
        "x.proj.weight": TensorScheme(8, 64, "float16"),
    }
    specs = tensors(parameters, schemes, "float16")
    assert specs == [
        TensorSpec("embed.q_weight", (50, 8), "uint32", "embed.weight"),
        TensorSpec("embed.q_scale", (50, 2), "float16", "embed.weight"),
        TensorSpec("norm.weight", (64,), "float16", "norm.weight"),
        TensorSpec("x.proj.q_weight", (10, 32), "uint32", "x.proj.weight"),
        TensorSpec("x.proj.q_scale", (10, 2), "float16", "x.proj.weight"),
    ]
    assert [nbytes(spec) for spec in specs] == [1600, 200, 128, 1280, 40]
    assert weight_bytes(specs) == 3248
    for p in parameters:
        names = tuple(spec.name for spec in specs if spec.parameter == p.name)
        assert mlc_names(p.name, schemes[p.name]) == names
