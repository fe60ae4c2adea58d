from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from quantization_fakes import parameter

from edgec.layouts.mlc import mlc_names, pack, scales_in_place, tensors, unpack
from edgec.layouts.specs import TensorSpec, nbytes, weight_bytes
from edgec.quantization.methods import rtn
from edgec.quantization.schemes import TensorScheme
from edgec.quantization.tensors import QuantizedTensor


@st.composite
def tensors_of_any_kind(draw: st.DrawFn) -> QuantizedTensor:
    bits = draw(st.sampled_from([4, 8]))
    group = draw(st.sampled_from([8, 16, 24, 32, 128]))
    rows, groups = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    scale_dtype = draw(st.sampled_from(["float16", "float32"]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    end = 1 << (bits - 1)
    codes = random.integers(-end, end, (rows, groups * group)).astype(np.int8)
    scales = random.uniform(-1, 1, (rows, groups)).astype(scale_dtype)
    scales[random.random(scales.shape) < 0.1] = 0
    zeros = random.integers(-end, end, scales.shape).astype(np.int8)
    return QuantizedTensor(codes, scales, bits, zeros if draw(st.booleans()) else None)


@given(tensors_of_any_kind())
def test_unpack_is_the_exact_inverse(tensor: QuantizedTensor) -> None:
    before = tensor.codes.copy(), tensor.scales.copy()
    packed = pack(tensor)
    found = unpack(packed["q_weight"], packed["q_scale"], tensor.bits, packed.get("q_zero"))
    np.testing.assert_array_equal(found.codes, tensor.codes)
    np.testing.assert_array_equal(found.scales, tensor.scales)
    assert found.scales.dtype == tensor.scales.dtype
    assert not np.signbit(found.scales[found.scales == 0]).any()
    np.testing.assert_array_equal(found.dequantize(), tensor.dequantize())
    np.testing.assert_array_equal(tensor.codes, before[0])
    np.testing.assert_array_equal(tensor.scales, before[1])


@given(tensors_of_any_kind())
def test_words_bit_by_bit(tensor: QuantizedTensor) -> None:
    packed = pack(tensor)
    words, scales = packed["q_weight"], packed["q_scale"]
    rows, columns = tensor.codes.shape
    per_word, largest = 32 // tensor.bits, (1 << (tensor.bits - 1)) - 1
    assert words.dtype == np.uint32
    assert words.shape == (rows, columns // per_word)
    assert not np.signbit(scales[scales == 0]).any()
    zeros = packed.get("q_zero")
    assert (zeros is None) == (tensor.zeros is None)
    values = np.empty((rows, columns))
    for row in range(rows):
        for column in range(columns):
            word = int(words[row, column // per_word])
            unsigned = word >> (column % per_word * tensor.bits) & ((1 << tensor.bits) - 1)
            assert unsigned == largest - int(tensor.codes[row, column])
            group = column // tensor.group_size
            zero = largest
            if zeros is not None:
                word = int(zeros[row, group // per_word])
                zero = word >> (group % per_word * tensor.bits) & ((1 << tensor.bits) - 1)
            values[row, column] = (unsigned - zero) * float(scales[row, group])
    np.testing.assert_array_equal(values.astype(np.float32), tensor.dequantize())


@pytest.mark.parametrize("bits", [4, 8])
def test_every_code_has_its_place_among_the_unsigned_ones(bits: int) -> None:
    end = 1 << (bits - 1)
    codes = np.arange(end - 1, -end - 1, -1).astype(np.int8).reshape(1, -1)
    packed = pack(QuantizedTensor(codes, np.array([[0.5]], np.float16), bits))
    stored = packed["q_weight"].astype("<u4").tobytes()
    unsigned = [n for byte in stored for n in ((byte & 15, byte >> 4) if bits == 4 else (byte,))]
    assert unsigned == list(range(2 * end))
    assert packed["q_scale"].tolist() == [[-0.5]]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_scales_are_negated_exactly_and_zeros_stay_positive(dtype: str) -> None:
    tiny, most = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    scales = np.array([[0.0, -0.0, tiny, -tiny], [most, -most, 1 / 3, -1 / 3]], dtype)
    expected = np.array([[0.0, 0.0, -tiny, tiny], [-most, most, -1 / 3, 1 / 3]], dtype)
    scales_in_place(scales)
    np.testing.assert_array_equal(scales, expected)
    assert not np.signbit(scales[0, :2]).any()


def test_the_rest_of_the_last_word_of_zero_points_is_always_the_same() -> None:
    codes, scales = np.zeros((2, 24), np.int8), np.ones((2, 3), np.float16)
    zeros = np.array([[7, -8, 0], [1, 2, 3]], np.int8)
    packed = pack(QuantizedTensor(codes, scales, 4, zeros))
    assert [hex(word) for word in packed["q_zero"].ravel()] == ["0x777777f0", "0x77777456"]


def test_packed_weights_are_those_of_the_formula_from_the_weights() -> None:
    # scale = peak / 8, q = round(w / scale + 7), value = (q - 7) * scale: float64, no ties here.
    weight = np.random.default_rng(3).standard_normal((8, 64), np.float32)
    packed = pack(rtn.quantize(weight, TensorScheme(4, 32, "float32")))
    groups = weight.astype(np.float64).reshape(8, 2, 32)
    highest, lowest = groups.max(axis=-1), groups.min(axis=-1)
    scale = np.where(highest > -lowest, highest, lowest) / 8
    q = np.clip(np.round(groups / scale[..., None] + 7), 0, 15).astype(np.uint64).reshape(8, 8, 8)
    assert {0, 15} <= set(q.ravel().tolist())
    words = (q << (4 * np.arange(8, dtype=np.uint64))).sum(axis=-1)
    np.testing.assert_array_equal(packed["q_weight"], words)
    np.testing.assert_array_equal(packed["q_scale"], scale)


def test_specs_follow_the_parameters() -> None:
    parameters = [
        parameter("embed.weight", (50, 64), "embedding"),
        parameter("norm.weight", (64,), "norm"),
        parameter("x.proj.weight", (10, 128)),
        parameter("y.proj.weight", (4, 288)),
    ]
    schemes = {
        "embed.weight": TensorScheme(4, 32, "float16"),
        "norm.weight": None,
        "x.proj.weight": TensorScheme(8, 64, "float16"),
        "y.proj.weight": TensorScheme(4, 32, "float16", zeros=True),
    }
    specs = tensors(parameters, schemes, "float16")
    assert specs == [
        TensorSpec("embed.q_weight", (50, 8), "uint32", "embed.weight"),
        TensorSpec("embed.q_scale", (50, 2), "float16", "embed.weight"),
        TensorSpec("norm.weight", (64,), "float16", "norm.weight"),
        TensorSpec("x.proj.q_weight", (10, 32), "uint32", "x.proj.weight"),
        TensorSpec("x.proj.q_scale", (10, 2), "float16", "x.proj.weight"),
        TensorSpec("y.proj.q_weight", (4, 36), "uint32", "y.proj.weight"),
        TensorSpec("y.proj.q_scale", (4, 9), "float16", "y.proj.weight"),
        TensorSpec("y.proj.q_zero", (4, 2), "uint32", "y.proj.weight"),
    ]
    assert [nbytes(spec) for spec in specs] == [1600, 200, 128, 1280, 40, 576, 72, 32]
    assert weight_bytes(specs) == 3928
    for p in parameters:
        names = tuple(spec.name for spec in specs if spec.parameter == p.name)
        assert mlc_names(p.name, schemes[p.name]) == names
