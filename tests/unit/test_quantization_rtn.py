from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgec.errors import UsageError
from edgec.parallel import Workspace
from edgec.quantization.badrows import BadRowError
from edgec.quantization.methods import load_method, method_names, rtn
from edgec.quantization.peaks import group_peaks
from edgec.quantization.schemes import TensorScheme

Array = npt.NDArray[Any]


def reference(weight: Array, scheme: TensorScheme) -> tuple[Array, Array]:
    """The definition, one number at a time in Python floats."""
    largest = {4: 7, 8: 127}[scheme.bits]
    store = np.dtype(scheme.scale_dtype).type
    codes, scales = [], []
    for row in weight.tolist():
        codes.append([])
        scales.append([])
        for start in range(0, len(row), scheme.group_size):
            group = row[start : start + scheme.group_size]
            scale = float(store(np.float32(max(map(abs, group)) / largest)))
            scales[-1].append(scale)
            for value in group:
                code = round(float(np.float32(value / scale))) if scale else 0
                codes[-1].append(max(-largest, min(largest, code)))
    return np.array(codes, np.int8), np.array(scales, store)


@st.composite
def weights(draw: st.DrawFn) -> tuple[Array, TensorScheme]:
    bits = draw(st.sampled_from([4, 8]))
    group = draw(st.sampled_from([8, 16, 24, 32, 40, 64]))
    scheme = TensorScheme(bits, group, draw(st.sampled_from(["float16", "float32"])))
    shape = (draw(st.integers(1, 4)), group * draw(st.integers(1, 3)))
    # Ordinary weights, halves of small integers (ties), zeros and the smallest magnitudes.
    elements = st.one_of(
        st.floats(-1e4, 1e4, width=32),
        st.integers(-15, 15).map(lambda i: i / 2),
        st.just(0.0),
        st.floats(-(2.0**-20), 2.0**-20, width=32),
    )
    fill = st.sampled_from([0.0, 3.0, 2.0**-25])
    return draw(hnp.arrays(np.float32, shape, elements=elements, fill=fill)), scheme


@given(weights())
def test_agrees_with_the_definition_in_python_floats(case: tuple[Array, TensorScheme]) -> None:
    weight, scheme = case
    found = rtn.quantize(weight, scheme)
    codes, scales = reference(weight, scheme)
    np.testing.assert_array_equal(found.scales, scales)
    np.testing.assert_array_equal(found.codes, codes)
    assert found.scales.dtype == scheme.scale_dtype
    assert found.codes.dtype == np.int8
    assert found.zeros is None


@given(weights(), st.integers(1, 3))
def test_rows_are_independent_and_scratch_memory_changes_nothing(
    case: tuple[Array, TensorScheme], split: int
) -> None:
    weight, scheme = case
    whole = rtn.quantize(weight, scheme)
    workspace = Workspace()
    before = weight.copy()
    for block in (slice(0, split), slice(split, None)):
        if weight[block].size:
            part = rtn.quantize(weight[block], scheme, workspace)
            np.testing.assert_array_equal(part.codes, whole.codes[block])
            np.testing.assert_array_equal(part.scales, whole.scales[block])
    np.testing.assert_array_equal(weight, before)


@pytest.mark.parametrize("bits", [4, 8])
def test_error_of_ordinary_weights_is_at_most_half_a_step(bits: int) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 256), np.float32)
    found = rtn.quantize(weight, TensorScheme(bits, 32, "float16"))
    step = np.repeat(found.scales.astype(np.float64), 32, axis=1)
    # The float16 scale can be up to 2**-11 too small, so the largest weight is that far outside.
    slack = 1 + 2 * {4: 7, 8: 127}[bits] * 2.0**-11
    error = np.abs(found.dequantize().astype(np.float64) - weight)
    assert (error <= 0.5 * step * slack).all()
    assert np.abs(found.codes).max() == {4: 7, 8: 127}[bits]


def test_ties_go_to_even() -> None:
    weight = np.array([[7, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.5]], np.float32)
    found = rtn.quantize(weight, TensorScheme(4, 8, "float32"))
    assert found.codes.tolist() == [[7, 0, 2, 2, 0, -2, -2, 4]]


def test_codes_are_clipped_where_float16_rounds_the_scale_down_coarsely() -> None:
    # 1.4 of the smallest float16 is stored as 1 of it: 9.8 steps to the largest weight.
    weight = np.full((1, 8), 7 * 1.4 * 2.0**-24, np.float32)
    found = rtn.quantize(weight, TensorScheme(4, 8, "float16"))
    assert found.codes.tolist() == [[7] * 8]
    assert float(found.scales[0, 0]) == 2.0**-24


def test_zero_groups_and_scales_that_round_to_zero_have_zero_codes() -> None:
    weight = np.zeros((2, 16), np.float32)
    weight[1, :8] = 2.0**-30
    weight[1, 8:] = 7
    found = rtn.quantize(weight, TensorScheme(4, 8, "float16"))
    assert found.scales.tolist() == [[0, 0], [0, 1]]
    assert found.codes.tolist() == [[0] * 16, [0] * 8 + [7] * 8]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", [0, 31, 32, 63])
def test_nan_and_infinity_are_found_in_every_place(value: float, column: int) -> None:
    weight = np.ones((5, 64), np.float32)
    weight[3, column] = value
    weight[4, 5] = math.nan
    with pytest.raises(BadRowError, match="NaN" if math.isnan(value) else "infinite") as caught:
        rtn.quantize(weight, TensorScheme(4, 32, "float16"))
    assert caught.value.row == 3


def test_a_scale_beyond_float16_is_refused_with_the_scheme_that_can() -> None:
    weight = np.ones((3, 32), np.float32)
    weight[2, 7] = 65520 * 7
    with pytest.raises(BadRowError, match="overflows float16; choose the scheme q4f32_1") as caught:
        rtn.quantize(weight, TensorScheme(4, 32, "float16"))
    assert caught.value.row == 2
    assert rtn.quantize(weight, TensorScheme(4, 32, "float32")).codes[2, 7] == 7
    weight[2, 7] = np.nextafter(np.float32(65520 * 7), np.float32(0))
    assert rtn.quantize(weight, TensorScheme(4, 32, "float16")).scales[2, 0] == 65504


@pytest.mark.parametrize("group", [1, 3, 8, 24, 40, 64])
def test_group_peaks_for_every_kind_of_width(group: int) -> None:
    weight = np.random.default_rng(1).standard_normal((6, group * 4), np.float32)
    expected = np.abs(weight).reshape(6, 4, group).max(axis=-1)
    np.testing.assert_array_equal(group_peaks(weight, group, Workspace()), expected)


def test_methods_are_found_by_name() -> None:
    assert "rtn" in method_names()
    assert load_method("rtn") is rtn.quantize
    with pytest.raises(UsageError, match=r"quantization\.method: .*'rtm'.*rtn"):
        load_method("rtm")
