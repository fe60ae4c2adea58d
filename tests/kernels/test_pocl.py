"""PoCL gives the same numbers as the emulator, and says what it can't do."""

from __future__ import annotations

import numpy as np
import pytest

from edgec.errors import BuildError, UsageError
from edgec.standins.emulation.program import Program as Emulation
from edgec.standins.faults import KernelFault
from edgec.standins.pocl.program import Program
from kernels.opencl_module import call, module
from standin_tools import needs

pytestmark = needs("pocl")

TEXT = """
__kernel void f(__global const float* restrict x, __global float* restrict y, int n, float s,
                char t) {
  __local float part[32];
  int me = get_local_id(0);
  part[me] = vload4(me, x + get_group_id(0) * 128).s2 * s + t;
  barrier(CLK_LOCAL_MEM_FENCE);
  y[get_global_id(0)] = part[(me + n) % 32];
}
"""
TYPES = ["handle", "handle", "int32", "float32", "int8"]


def test_same_numbers_as_the_emulator() -> None:
    x = np.random.default_rng(0).standard_normal((6, 128), dtype=np.float32)
    results = []
    for kind in (Program, Emulation):
        y = np.zeros((6, 32), np.float32)
        with kind(module("f", TEXT, TYPES)) as program:
            for _ in range(2):
                call(program, "f", [x, y, 3, 0.37, -2], [6, 32])
        results.append(y)
    # One multiplication and one addition; PoCL may contract them.
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=4e-7)
    expected = np.roll(x.reshape(6, 32, 4)[:, :, 2] * np.float32(0.37) - 2, -3, axis=1)
    np.testing.assert_allclose(results[0], expected, rtol=0, atol=4e-7)


def test_half_is_refused() -> None:
    text = "__kernel void f(__global half* x) { x[0] = x[1]; }"
    with pytest.raises(UsageError, match=r"float16.*cl_khr_fp16.*emulator"):
        Program(module("f", text, ["handle"]))


def test_a_text_that_doesnt_compile() -> None:
    text = "__kernel void f(__global int* x) { x[0] = nonsense; }"
    program = Program(module("f", text, ["handle"]))
    with program, pytest.raises(BuildError, match=r"kernel f.*nonsense"):
        call(program, "f", [np.zeros(4, "i4")], [1, 1])


def test_a_launch_that_is_refused() -> None:
    text = "__kernel void f(__global int* x) { x[0] = 1; }"
    program = Program(module("f", text, ["handle"]))
    with program, pytest.raises(KernelFault, match="clEnqueueNDRangeKernel"):
        call(program, "f", [np.zeros(4, "i4")], [1, 1 << 20])
