"""``x @ w.T`` for GPUs as loops without a schedule: dequantization, products, rounding.

The rules put the dequantization into the loop that reads the weights, so nothing is dequantized
into memory. Sums are float32 whatever the dtypes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import te, tirx

from edgec.scheduling.kernels.linear import LinearKernel

if TYPE_CHECKING:
    from edgec.scheduling.kernels.linear import Linear


def linear_kernel(linear: Linear, *, single: bool) -> LinearKernel:
    """See :class:`edgec.scheduling.kernels.linear.LinearKernels`."""
    # One index type throughout: the rules refuse a mixture.
    n, k = _int64(linear.n), _int64(linear.k)
    rows = _int64(1) if single else te.var("rows", "int64")
    x = te.placeholder((rows, k), linear.x_dtype, name="x")
    if linear.bits:
        columns = _int64(linear.k // linear.codes_per_word)
        words = te.placeholder((n, columns), linear.w_dtype, name="words")
        groups = _int64(linear.k // linear.group)
        scales = te.placeholder((n, groups), linear.scale_dtype, name="scales")
        stored = [words, scales]
        if linear.zeros:
            zero_words = _int64(linear.zero_words)
            stored.append(te.placeholder((n, zero_words), "uint32", name="zeros"))
        weight = _dequantize(linear, *stored)
    else:
        weight = te.placeholder((n, k), linear.w_dtype, name="w")
        stored = [weight]
    axis = te.reduce_axis((_int64(0), k), name="k")
    sums = te.compute(
        (rows, n),
        lambda i, j: te.sum(
            x[i, axis].astype("float32") * weight[j, axis].astype("float32"), axis=axis
        ),
        name="matmul",
    )
    y = sums
    if linear.y_dtype != "float32":
        y = te.compute((rows, n), lambda i, j: sums[i, j].astype(linear.y_dtype), name="round")
    function = te.create_prim_func([x, *stored, y]).without_attr("global_symbol")
    return LinearKernel(f"{'gemv' if single else 'gemm'}_{linear.name}", function)


def _dequantize(
    linear: Linear, words: te.Tensor, scales: te.Tensor, zeros: te.Tensor | None = None
) -> te.Tensor:
    """The weights ``(n, k)`` in the dtype of the activations; see ``layouts.mlc`` for the words."""
    per_word, bits = linear.codes_per_word, linear.bits

    def number(source: te.Tensor, row: Any, place: Any) -> Any:
        shift = tirx.Cast("uint32", (place % per_word) * bits)
        shifted = tirx.shift_right(source[row, place // per_word], shift)
        code = tirx.bitwise_and(shifted, tirx.const((1 << bits) - 1, "uint32"))
        return tirx.Cast(linear.x_dtype, code)

    def value(row: Any, column: Any) -> Any:
        group = column // linear.group
        middle = tirx.const(linear.middle, linear.x_dtype)
        zero = middle if zeros is None else number(zeros, row, group)
        # Codes are exact in float16, so the zero point is subtracted there.
        return (number(words, row, column) - zero) * scales[row, group].astype(linear.x_dtype)

    return te.compute((_int64(linear.n), _int64(linear.k)), value, name="dequantize")


def _int64(value: int) -> tirx.IntImm:
    return tirx.IntImm("int64", value)
