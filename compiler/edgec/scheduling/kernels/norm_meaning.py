"""What a norm's kernel computes, as loops without a schedule, to check kernels against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import te, tirx

if TYPE_CHECKING:
    from edgec.scheduling.kernels.gpu_norm import Norm


def norm_meaning(norm: Norm) -> Any:
    """The PrimFunc with the arguments of :func:`edgec.scheduling.kernels.gpu_norm.rms_norm`."""
    size = tirx.IntImm("int64", norm.size)
    shape = (*(te.var(f"n{axis}", "int64") for axis in range(norm.leading)), size)
    names = ("x", "addend") if norm.adds else ("x",)
    terms = [te.placeholder(shape, norm.dtype, name=name) for name in names]
    weight = te.placeholder((size,), norm.dtype, name="weight")
    total = terms[0]
    if norm.adds:
        # Rounded to the type of the hidden states, as a sum in memory is.
        total = te.compute(shape, lambda *i: terms[0](*i) + terms[1](*i), name="total")
    axis = te.reduce_axis((0, size), name="k")
    squares = te.compute(
        shape[:-1],
        lambda *i: te.sum(
            total(*i, axis).astype("float32") * total(*i, axis).astype("float32"), axis=axis
        ),
        name="squares",
    )

    def scaled(*i: Any) -> Any:
        mean = squares(*i[:-1]) / tirx.const(norm.size, "float32")
        root = te.sqrt(mean + tirx.const(norm.epsilon, "float32"))
        value = total(*i).astype("float32") / root * weight(i[-1]).astype("float32")
        return value.astype(norm.dtype)

    y = te.compute(shape, scaled, name="y")
    results = [total, y] if norm.keeps_sum else [y]
    return te.create_prim_func([*terms, weight, *results]).without_attr("global_symbol")
