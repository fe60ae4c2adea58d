"""Arm's experts by products of bytes, under emulation, against the references of their kernels."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402

from edgec.passes.reference_kernels import reference_kernels  # noqa: E402
from edgec.scheduling.kernels.experts import Experts  # noqa: E402
from edgec.scheduling.kernels.linear import Linear  # noqa: E402
from edgec.standins import toolbox  # noqa: E402
from edgec.target import load_target  # noqa: E402
from kernels.host_library import HandMade, Hosted  # noqa: E402
from kernels.test_cpu_dot import F16, F32, activations  # noqa: E402
from kernels.test_cpu_dot_experts import Kernels, ids_of, stored_of  # noqa: E402
from standin_tools import needs  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, needs("qemu-aarch64"), needs("aarch64-linux-gnu-g++")]

LAYER = Experts(
    Linear(32, 128, F32, F32, "uint32", 4, 64, F16, zeros=True, tiled=True), experts=3, share=2
)


@pytest.mark.parametrize(
    ("name", "cpu"),
    [
        pytest.param("linux-arm64", "cortex-a76", marks=pytest.mark.nightly),
        ("linux-arm64-i8mm", "max,sve=off"),
    ],
)
def test_kernels_compute_what_their_references_do(name: str, cpu: str, tmp_path: Path) -> None:
    """And a token's results don't depend on the tokens beside it."""
    target = tvm.target.Target(dict(load_target(name).tvm))
    kernels = Kernels(LAYER, target)
    tvm.tirx.build(kernels.module, target).write_to_file(str(tmp_path / "kernels.o"), "o")
    path = tmp_path / "kernels.so"
    linker = toolbox.cross_cxx("aarch64")
    subprocess.run([linker, "-shared", str(tmp_path / "kernels.o"), "-o", str(path)], check=True)
    names = tuple(var.name_hint for var in kernels.module.get_global_vars())
    hosted = Hosted(HandMade(path, "aarch64", "", names), "ext_dev", cpu=cpu)
    meanings = reference_kernels(kernels.module)
    library = tvm.runtime.Executable(tvm.tirx.build(meanings, tvm.target.Target("llvm")))
    stored, tokens = stored_of(LAYER), 30
    x, ids = activations(LAYER.linear, tokens), ids_of(LAYER, tokens)
    for first, last in ((0, tokens), (3, 4), (5, 8)):
        slots = slice(first * LAYER.share, last * LAYER.share)
        arguments = x[first:last], ids[slots], stored
        (*found, y) = kernels.run(hosted, hosted.tensor, *arguments)
        (*wanted, right) = kernels.run(
            lambda name, *rest: library[name](*rest), tvm.runtime.tensor, *arguments
        )
        for got, expected in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(got, expected)
        assert np.abs(y - right).max() <= 1e-6 * np.abs(right).max()
        if first == 0:
            whole = y
        np.testing.assert_array_equal(y, whole[slots])
