"""The kernel of a linear layer on a CPU, by how its weights are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm.target.codegen import target_has_features

from edgec.scheduling.kernels import cpu_amx, cpu_dot, cpu_matmul
from edgec.scheduling.kernels.byte_dots import ByteDots

if TYPE_CHECKING:
    import tvm

    from edgec.scheduling.kernels.linear import Linear, LinearKernel, LinearKernels


def linear_kernels(vector_bits: int, target: tvm.target.Target) -> LinearKernels:
    """The CPU's kernels, for :class:`edgec.passes.lower_linear.LowerLinear`.

    Args:
        vector_bits: width of the registers.
        target: TVM's; says what instructions there are.
    """
    dots = ByteDots.of(target)
    tiles = target_has_features(["amx-bf16"], target)
    row_by_row = cpu_matmul.linear_kernels(vector_bits)

    def make(linear: Linear, *, single: bool) -> LinearKernel:
        if not linear.tiled:
            return row_by_row(linear, single=single)
        if tiles and not single:
            return cpu_amx.many_rows_kernel(linear)
        assert dots is not None, (
            "a profile with this layout names a CPU that adds products of bytes"
        )
        return cpu_dot.linear_kernel(linear, dots, single=single)

    return make
