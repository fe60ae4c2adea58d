"""Turn a lookup in a quantized table into a kernel that dequantizes only the rows it returns."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, te, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from edgec.ir.params import extern_call, static_shape
from edgec.models.blocks import QUANTIZED_TAKE


@tvm.transform.module_pass(opt_level=0, name="LowerQuantizedTake")
class LowerQuantizedTake:
    """``edgec.quantized_take`` on codes stored as 32-bit words, for every platform."""

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite the Relax functions and add the kernels they call."""
        lower = _Lower(mod)
        for var, function in mod.functions_items():
            if isinstance(function, relax.Function):
                lower.builder_.update_func(var, lower.visit_expr(function))
        return lower.builder_.get()


@mutator
class _Lower(PyExprMutator):  # type: ignore[misc]
    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        extern = extern_call(call)
        if extern is None or extern[0] != QUANTIZED_TAKE:
            return call
        ids, words, scales = extern[1]
        out = call.ty_args[0]
        columns = int(out.shape.values[-1])
        bits = 32 * static_shape(words)[1] // columns
        group = columns // static_shape(scales)[1]
        return self.builder_.call_te(
            _take,
            ids,
            words,
            scales,
            columns,
            bits,
            group,
            str(out.dtype),
            primfunc_name_hint=f"take_q{bits}",
        )


def _take(
    ids: te.Tensor,
    words: te.Tensor,
    scales: te.Tensor,
    columns: int,
    bits: int,
    group: int,
    dtype: str,
) -> te.Tensor:
    """Rows ``ids`` ``(n,)`` of a table as ``(n, columns)``; see ``layouts.mlc`` for the words."""
    per_word = 32 // bits
    zero = (1 << (bits - 1)) - 1

    def value(row: Any, column: Any) -> Any:
        word = words[ids[row], column // per_word]
        shift = tirx.Cast("uint32", (column % per_word) * bits)
        code = tirx.bitwise_and(
            tirx.shift_right(word, shift), tirx.const((1 << bits) - 1, "uint32")
        )
        centered = tirx.Cast("int32", code) - zero
        return tirx.Cast(dtype, centered) * scales[ids[row], column // group].astype(dtype)

    return te.compute((ids.shape[0], columns), value, name="take")
