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
    by_bytes = _by_bytes(vector_bits, target)
    if not _has_matrix_tiles(target):
        return by_bytes

    def make(linear: Linear, *, single: bool) -> LinearKernel:
        if linear.tiled and not single:
            return cpu_amx.many_rows_kernel(linear)
        return by_bytes(linear, single=single)

    return make


def kernels_in_steps(vector_bits: int, target: tvm.target.Target) -> LinearKernels | None:
    """Those where rows are few, with which a row's results don't depend on how many there are.

    Matrix tiles would have to unpack all weights for few rows, and they round activations otherwise than
    the kernel for one row does. None where they are those of :func:`linear_kernels`.
    """
    return _by_bytes(vector_bits, target) if _has_matrix_tiles(target) else None


def quantizes_in_producers(target: tvm.target.Target) -> bool:
    """Whether kernels before a linear layer quantize their results themselves.

    Only on x86: kernels for other processors are checked one by one on machines that lack them, and
    there the last bit of a norm, which depends on the order of its sum, can decide on a quantized byte.
    """
    dots = ByteDots.of(target)
    return dots is not None and not dots.by_element


def _has_matrix_tiles(target: tvm.target.Target) -> bool:
    return bool(target_has_features(["amx-bf16"], target))


def _by_bytes(vector_bits: int, target: tvm.target.Target) -> LinearKernels:
    dots = ByteDots.of(target)
    row_by_row = cpu_matmul.linear_kernels(vector_bits)

    def make(linear: Linear, *, single: bool) -> LinearKernel:
        if not linear.tiled:
            return row_by_row(linear, single=single)
        assert dots is not None, (
            "a profile with this layout names a CPU that adds products of bytes"
        )
        return cpu_dot.linear_kernel(linear, dots, single=single)

    return make
