from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from random import Random

Array = npt.NDArray[Any]


LOWEST = {4: -8, 8: -128}
LARGEST = {4: 7, 8: 127}


def peak_of(group: list[float]) -> float:
    """The number of the largest magnitude, the positive one of two."""
    return max(group, key=lambda value: (abs(value), value))


def reference(weight: Array, scheme: TensorScheme) -> tuple[Array, Array]:
    """The definition, one number at a time in Python floats."""
    lowest, largest = LOWEST[scheme.bits], LARGEST[scheme.bits]
    store = np.dtype(scheme.scale_dtype).type
    codes, scales = [], []
    for row in weight.tolist():
        codes.append([])
        scales.append([])
        for start in range(0, len(row), scheme.group_size):
            group = row[start : start + scheme.group_size]
            scale = float(store(np.float32(peak_of(group) / lowest)))
            scales[-1].append(scale)
            for value in group:
                code = round(float(np.float32(value / scale))) if scale else 0
                codes[-1].append(max(lowest, min(largest, code)))
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
    assert not np.signbit(found.scales[found.scales == 0]).any()


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


@given(weights(), st.randoms(use_true_random=False))
def test_the_order_of_a_group_does_not_matter(
    case: tuple[Array, TensorScheme], random: Random
) -> None:
    weight, scheme = case
    order = list(range(scheme.group_size))
    random.shuffle(order)
    groups = (len(weight), -1, scheme.group_size)
    shuffled = np.ascontiguousarray(weight.reshape(groups)[..., order]).reshape(weight.shape)
    whole, other = rtn.quantize(weight, scheme), rtn.quantize(shuffled, scheme)
    np.testing.assert_array_equal(other.scales, whole.scales)
    np.testing.assert_array_equal(
        other.codes.reshape(groups), whole.codes.reshape(groups)[..., order]
    )


@pytest.mark.parametrize("bits", [4, 8])
def test_error_of_ordinary_weights_is_at_most_half_a_step(bits: int) -> None:
    weight = np.random.default_rng(0).standard_normal((64, 2048), np.float32)
    found = rtn.quantize(weight, TensorScheme(bits, 32, "float16"))
    step = np.repeat(np.abs(found.scales.astype(np.float64)), 32, axis=1)
    # The float16 scale can be up to 2**-11 too small, so the largest weight is that far outside.
    slack = 1 + 2 * LARGEST[bits] * 2.0**-11
    error = np.abs(found.dequantize().astype(np.float64) - weight)
    # A weight near the opposite of the peak has no code of its own: it may be a whole step off.
    clipped = found.codes == LARGEST[bits]
    assert (error <= np.where(clipped, 1, 0.5) * step * slack).all()
    assert np.unique(found.codes).tolist() == list(range(LOWEST[bits], LARGEST[bits] + 1))


def test_the_error_of_four_bits_is_that_of_sixteen_codes() -> None:
    weight = np.random.default_rng(0).standard_normal((512, 1024), np.float32)
    found = rtn.quantize(weight, TensorScheme(4, 32, "float16"))
    error = np.square(found.dequantize() - weight).mean() / np.square(weight).mean()
    # Fifteen codes, -7 to 7, give 0.0094.
    assert 0.0073 < error < 0.0075


def test_ties_go_to_even() -> None:
    weight = np.array([[-8, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.5]], np.float32)
    found = rtn.quantize(weight, TensorScheme(4, 8, "float32"))
    assert found.scales.tolist() == [[1]]
    assert found.codes.tolist() == [[-8, 0, 2, 2, 0, -2, -2, 4]]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("place", range(8))
def test_the_peak_has_the_lowest_code_whatever_its_sign(bits: int, place: int) -> None:
    lowest, largest = LOWEST[bits], LARGEST[bits]
    for sign in (1, -1):
        weight = np.full((1, 8), sign * 3, np.float32)
        weight[0, (place + 3) % 8] = -sign * -lowest * 0.999  # no code for its quotient
        weight[0, place] = sign * -lowest
        found = rtn.quantize(weight, TensorScheme(bits, 8, "float16"))
        assert found.scales.tolist() == [[-sign]]
        expected = [-3] * 8
        expected[(place + 3) % 8], expected[place] = largest, lowest
        assert found.codes.tolist() == [expected]


@pytest.mark.parametrize("first", [1, -1])
def test_of_two_peaks_the_positive_one_counts(first: int) -> None:
    weight = np.array([[first * 8, -first * 8, 1, 2, 3, 4, 5, 6]], np.float32)
    found = rtn.quantize(weight, TensorScheme(4, 8, "float32"))
    assert found.scales.tolist() == [[-1]]
    assert found.codes.tolist() == [[*[-8, 7][::first], -1, -2, -3, -4, -5, -6]]


@pytest.mark.parametrize("bits", [4, 8])
def test_codes_are_clipped_where_float16_rounds_the_scale_down_coarsely(bits: int) -> None:
    # 1.4 of the smallest float16 is stored as 1 of it: quotients of 11.2, or of 179.2 with int8.
    lowest, largest = LOWEST[bits], LARGEST[bits]
    weight = np.full((1, 8), lowest * 1.4 * 2.0**-24, np.float32)
    weight[0, 3] *= np.float32(-0.999)
    found = rtn.quantize(weight, TensorScheme(bits, 8, "float16"))
    assert found.codes.tolist() == [[lowest] * 3 + [largest] + [lowest] * 4]
    assert float(found.scales[0, 0]) == 2.0**-24


def test_zero_groups_and_scales_that_round_to_zero_have_zero_codes() -> None:
    weight = np.zeros((3, 16), np.float32)
    weight[0, 8:] = -0.0
    weight[1, :8] = 2.0**-30
    weight[1, 8:] = -8
    weight[2, :8] = -(2.0**-30)
    found = rtn.quantize(weight, TensorScheme(4, 8, "float16"))
    assert found.scales.tolist() == [[0, 0], [0, 1], [0, 0]]
    assert not np.signbit(found.scales).any()
    assert found.codes.tolist() == [[0] * 16, [0] * 8 + [-8] * 8, [0] * 16]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", [0, 31, 32, 63])
def test_nan_and_infinity_are_found_in_every_place(value: float, column: int) -> None:
    weight = np.ones((5, 64), np.float32)
    weight[3, column] = value
    weight[4, 5] = value
    with pytest.raises(BadRowError, match="NaN" if math.isnan(value) else "infinite") as caught:
        rtn.quantize(weight, TensorScheme(4, 32, "float16"))
    assert caught.value.row == 3


def test_a_scale_beyond_float16_is_refused_with_the_scheme_that_can() -> None:
    weight = np.ones((3, 32), np.float32)
    weight[2, 7] = -65520 * 8
    with pytest.raises(BadRowError, match="overflows float16; choose the scheme q4f32_1") as caught:
        rtn.quantize(weight, TensorScheme(4, 32, "float16"))
    assert caught.value.row == 2
    assert rtn.quantize(weight, TensorScheme(4, 32, "float32")).codes[2, 7] == -8
    weight[2, 7] = np.nextafter(np.float32(65520 * 8), np.float32(0))
    assert rtn.quantize(weight, TensorScheme(4, 32, "float16")).scales[2, 0] == -65504


@pytest.mark.parametrize("group", [1, 3, 8, 24, 40, 64])
def test_group_peaks_for_every_kind_of_width(group: int) -> None:
    weight = np.random.default_rng(1).standard_normal((6, group * 4), np.float32)
    groups = weight.reshape(6, 4, group)
    expected = [[peak_of(numbers) for numbers in row] for row in groups.tolist()]
    np.testing.assert_array_equal(group_peaks(weight, group, Workspace()), expected)


@given(
    hnp.arrays(
        np.float32,
        st.sampled_from([(1, 8), (2, 24), (3, 40)]),
        # Few magnitudes, so that both signs of one often meet.
        elements=st.sampled_from([0.0, -0.0, 2.0**-149, -(2.0**-149), 1.0, -1.0, 3e38, -3e38]),
    )
)
def test_group_peaks_of_every_mixture_of_signs(weight: Array) -> None:
    expected = [[peak_of(row[i : i + 8]) for i in range(0, len(row), 8)] for row in weight.tolist()]
    np.testing.assert_array_equal(group_peaks(weight, 8, Workspace()), expected)


def test_methods_are_found_by_name() -> None:
    assert "rtn" in method_names()
    assert load_method("rtn") is rtn.quantize
    with pytest.raises(UsageError, match=r"quantization\.method: .*'rtm'.*rtn"):
        load_method("rtm")
