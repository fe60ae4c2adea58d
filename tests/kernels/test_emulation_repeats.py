"""Of launches that access the same places only the first is checked; others always are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgec.standins.emulation.program import Program
from edgec.standins.faults import KernelFault
from kernels.opencl_module import Array, call, module
from standin_tools import needs

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs("clang++")

# Where it writes follows from numbers: only a kernel without integers is taken at its word.
SCALE = """__kernel void f(__global float* x, __global float* y, float s) {
  int i = get_global_id(0);
  y[i + (int)x[0] * 100] = s * x[i];
}"""
PICK = """__kernel void f(__global int* place, __global float* y) {
  y[place[get_global_id(0)]] = 1.0f;
}"""
SCALED = ["handle", "handle", "float32"]


@pytest.fixture
def scale() -> Iterator[Program]:
    with Program(module("f", SCALE, SCALED), checked=True) as program:
        yield program


def wrong(program: Program, *arguments: object, items: int = 8) -> bool:
    """Whether checks find a fault."""
    try:
        call(program, "f", arguments, (1, items))  # type: ignore[arg-type]
    except KernelFault:
        return True
    return False


def numbers(size: int, first: float = 0) -> Array:
    """Of which the first says how many hundred elements behind its own each result is written."""
    values = np.linspace(1, 2, size, dtype=np.float32)
    values[0] = first
    return values


def test_the_same_launch_again_is_not_checked_but_right(scale: Program) -> None:
    assert not wrong(scale, numbers(128), np.zeros(128, np.float32), 3.0)
    x, y = numbers(128, 0.5), np.zeros(128, np.float32)
    assert not wrong(scale, x, y, 3.0)
    np.testing.assert_array_equal(y, np.concatenate([3 * x[:8], np.zeros(120, np.float32)]))
    assert scale._unchecked is not None


@pytest.mark.parametrize(("size", "scalar", "items"), [(120, 3.0, 8), (128, 2.0, 8), (128, 3.0, 4)])
def test_another_size_number_or_extent_is_checked(
    scale: Program, size: int, scalar: float, items: int
) -> None:
    assert not wrong(scale, numbers(128), np.zeros(128, np.float32), 3.0)
    y = np.zeros(size, np.float32)
    assert wrong(scale, numbers(128, 2), y, scalar, items=items)


def test_what_failed_is_checked_again(scale: Program) -> None:
    for _ in range(2):
        assert wrong(scale, numbers(128, 2), np.zeros(128, np.float32), 3.0)


def test_integers_may_be_places_and_are_always_checked() -> None:
    with Program(module("f", PICK, ["handle", "handle"]), checked=True) as program:
        places, y = np.arange(8, dtype=np.int32), np.zeros(8, np.float32)
        assert not wrong(program, places, y)
        places[3] = 8
        assert wrong(program, places, y)
