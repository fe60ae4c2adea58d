"""Kernels in WGSL run on a device with WebGPU, and what it refuses is told with their names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgec.errors import BuildError, ToolchainError, UsageError, VerificationError
from edgec.standins.faults import KernelFault
from kernels.opencl_module import call
from kernels.wgsl_module import LIMITS, module
from standin_tools import needs

if TYPE_CHECKING:
    from edgec.libraries.device import DeviceModule
    from edgec.standins.wgpu.program import Program

pytestmark = needs("wgpu")

SCALE = """
  let at = block * 64u + me;
  if (at < u32(podArgs.n)) { y[at] = x[at] * podArgs.scale + f32(podArgs.more); }
"""
SCALARS = (("n", "int32"), ("scale", "float32"), ("more", "uint32"))
BUFFERS = (("x", "f32", False), ("y", "f32", True))


def program(device: DeviceModule, **limits: int) -> Program:
    from edgec.standins.wgpu.program import Program  # noqa: PLC0415 - loads wgpu

    return Program(device, {**LIMITS, **limits})


def test_buffers_and_scalars_arrive() -> None:
    x = np.random.default_rng(0).standard_normal(150, dtype=np.float32)
    y = np.full(152, 7.0, np.float32)
    with program(module(SCALE, BUFFERS, SCALARS)) as kernels:
        for _ in range(2):
            call(kernels, "f_kernel", [x, y, 150, 0.5, 2**31], [3, 64])
    np.testing.assert_allclose(y[:150], x * np.float32(0.5) + 2.0**31, rtol=1e-6)
    # What it doesn't write stays as it was.
    assert (y[150:] == 7).all()


def test_only_what_is_written_comes_back() -> None:
    text = "if (me == 0u) { y[0] = x[0]; }"
    x, y = np.array([3], np.uint32), np.zeros(1, np.uint32)
    kinds = (("x", "u32", False), ("y", "u32", True))
    with program(module(text, kinds)) as kernels:
        call(kernels, "f_kernel", [x, y], [1, 64])
    assert (x[0], y[0]) == (3, 3)


def test_half_precision_of_an_odd_size() -> None:
    text = "if (me < 5u) { y[me] = y[me] * 2.0h; }"
    y = np.arange(7).astype(np.float16)
    device = module(text, [("y", "f16", True)], head="enable f16;")
    with program(device) as kernels:
        call(
            kernels,
            "f_kernel",
            [
                y[:5],
            ],
            [1, 64],
        )
    assert y.tolist() == [0, 2, 4, 6, 8, 5, 6]


def test_more_groups_than_fit_into_one_dimension() -> None:
    groups = 2 * 65535 + 3
    text = "if (me == 0u) { y[block] = block; }"
    y = np.zeros(groups, np.uint32)
    with program(module(text, [("y", "u32", True)], group=1)) as kernels:
        call(kernels, "f_kernel", [y], [groups, 1])
    np.testing.assert_array_equal(y, np.arange(groups))


def test_one_buffer_twice() -> None:
    x = np.arange(64, dtype=np.float32)
    text = "z[me] = x[me] + y[me];"
    three = (("x", "f32", False), ("y", "f32", False), ("z", "f32", True))
    z = np.zeros(64, np.float32)
    with program(module(text, three)) as kernels:
        call(kernels, "f_kernel", [x, x, z], [1, 64])
        np.testing.assert_array_equal(z, 2 * x)
        with pytest.raises(KernelFault, match=r"one buffer twice.*f_kernel|f_kernel.*one buffer"):
            call(kernels, "f_kernel", [x, z, z], [1, 64])


@pytest.mark.parametrize(
    ("arguments", "extents", "message"),
    [
        ([150, 0.5, 0], [3, 32], r"work-groups of \(32, 1, 1\) and was written for \(64, 1, 1\)"),
        ([1 << 40, 0.5, 0], [3, 64], "1099511627776, which a browser cuts to 32 bits"),
        ([150, 0.5, 0], [0, 64], "launched with 0 as the extent of blockIdx.x"),
    ],
)
def test_a_launch_that_is_refused(arguments: list[float], extents: list[int], message: str) -> None:
    x, y = np.zeros(150, np.float32), np.zeros(150, np.float32)
    device = module(SCALE, BUFFERS, SCALARS)
    with program(device) as kernels, pytest.raises(KernelFault, match=message):
        call(kernels, "f_kernel", [x, y, *arguments], extents)


def test_a_text_that_is_no_wgsl() -> None:
    device = module("y[me] = nonsense;", [("y", "f32", True)])
    with program(device) as kernels, pytest.raises(BuildError, match="nonsense") as caught:
        kernels.compile("f_kernel")
    assert caught.value.where == "kernel f_kernel"
    assert "(line 14, column 9)" in str(caught.value)
    assert "│" not in str(caught.value)


def test_another_name_in_the_text() -> None:
    device = module("y[me] = 0;", [("y", "f32", True)])
    device.code["f_kernel"] = device.code["f_kernel"].replace(b"fn f_kernel", b"fn g")
    with program(device) as kernels, pytest.raises(BuildError, match="kernel f_kernel: WebGPU"):
        kernels.compile("f_kernel")


def test_a_kernel_that_is_not_there() -> None:
    device = module("y[me] = 0.0;", [("y", "f32", True)])
    with program(device) as kernels, pytest.raises(VerificationError, match="no such kernel"):
        kernels.launch("g", [], [], {})


def test_limits_are_those_of_the_profile() -> None:
    from edgec.standins.wgpu.shader import Shader  # noqa: PLC0415

    two = module("y[me] = x[me];", BUFFERS)
    with pytest.raises(BuildError, match="2 storage buffers and the device has 1"):
        program(two, max_buffers=1)
    # The device itself refuses what the text hides.
    large = module("y[me] = 0.0;", [("y", "f32", True)], group=128)
    check = Shader.check
    try:
        Shader.check = lambda *_: None  # type: ignore[method-assign]
        with program(large, max_threads=64) as kernels, pytest.raises(BuildError, match="128"):
            kernels.compile("f_kernel")
    finally:
        Shader.check = check  # type: ignore[method-assign]


def test_a_buffer_that_the_adapter_cant_bind() -> None:
    device = module("y[me] = 0.0;", [("y", "f32", True)])
    with program(device) as kernels, pytest.raises(UsageError, match="binds at most"):
        kernels.launch("f_kernel", [4096], [1, 64], {0: 1 << 40})


def test_an_adapter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from edgec.standins.wgpu import adapter  # noqa: PLC0415 - loads wgpu

    adapter.find_adapter.cache_clear()
    monkeypatch.setenv(adapter.ADAPTER_VARIABLE, "no such device")
    with pytest.raises(ToolchainError, match="'no such device' in its name"):
        adapter.find_adapter()
    monkeypatch.delenv(adapter.ADAPTER_VARIABLE)
    name = adapter.find_adapter().info["device"]
    with pytest.raises(ToolchainError, match="lacks max-compute-invocations-per-workgroup"):
        adapter.open_gpu((), {"max_threads": 1 << 20})
    with pytest.raises(ToolchainError, match=f"{name.split()[0]}.* lacks ray-tracing"):
        adapter.open_gpu(("ray-tracing",), {})


def test_figures() -> None:
    from edgec.standins.wgpu.figures import shader_figures  # noqa: PLC0415 - loads wgpu

    device = module(SCALE, BUFFERS, SCALARS)
    found = shader_figures(device, LIMITS)
    assert found.wgsl_bytes == len(device.code["f_kernel"])
    assert 0 < found.pipeline_seconds < 60
    assert found.adapter
