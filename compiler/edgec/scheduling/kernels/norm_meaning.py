"""What a norm's kernel computes, as loops without a schedule, to check kernels against."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import te, tirx

if TYPE_CHECKING:
    from edgec.scheduling.kernels.norm import Norm


def norm_meaning(norm: Norm) -> Any:
    """The PrimFunc with the arguments of :class:`edgec.scheduling.kernels.norm.NormKernels`."""
    size = tirx.IntImm("int64", norm.size)
    shape = (*(te.var(f"n{axis}", "int64") for axis in range(norm.leading)), size)
    names = ("x", "addend") if norm.adds else ("x",)
    terms = [te.placeholder(shape, norm.dtype, name=name) for name in names]
    names = ("weight", "bias") if norm.centered else ("weight",)
    learned = [te.placeholder((size,), norm.dtype, name=name) for name in names]
    total = terms[0]
    if norm.adds:
        # Rounded to the type of the hidden states, as a sum in memory is.
        total = te.compute(shape, lambda *i: terms[0](*i) + terms[1](*i), name="total")
    count = tirx.const(norm.size, "float32")

    def summed(term: Any, name: str) -> Any:
        axis = te.reduce_axis((0, size), name=f"{name}_axis")
        return te.compute(shape[:-1], lambda *i: te.sum(term(*i, axis), axis=axis), name=name)

    def wide(*i: Any) -> Any:
        return total(*i).astype("float32")

    centered = wide
    if norm.centered:
        sums = summed(wide, "sums")

        def centered(*i: Any) -> Any:
            return wide(*i) - sums(*i[:-1]) / count

    squares = summed(lambda *i: centered(*i) * centered(*i), "squares")

    def scaled(*i: Any) -> Any:
        root = te.sqrt(squares(*i[:-1]) / count + tirx.const(norm.epsilon, "float32"))
        weight, *bias = (item(i[-1]).astype("float32") for item in learned)
        value = centered(*i) / root * weight
        return sum(bias, start=value).astype(norm.dtype)

    y = te.compute(shape, scaled, name="y")
    results = [total, y] if norm.keeps_sum else [y]
    return te.create_prim_func([*terms, *learned, *results]).without_attr("global_symbol")
