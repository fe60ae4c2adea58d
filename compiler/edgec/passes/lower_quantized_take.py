"""Turn a lookup in a quantized table into a kernel that dequantizes only the rows it returns."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from edgec.ir.params import extern_call, static_shape
from edgec.models.blocks import QUANTIZED_TAKE
from edgec.passes.table_lookup import lookup


@tvm.transform.module_pass(opt_level=0, name="LowerQuantizedTake")
class LowerQuantizedTake:
    """``edgec.quantized_take`` on codes stored in either layout, for every platform."""

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
        ids, *table = extern[1]
        out = call.ty_args[0]
        columns = int(out.shape.values[-1])
        bits = 32 * static_shape(table[0])[1] // columns
        return self.builder_.call_te(
            lookup, ids, [table], columns, str(out.dtype), primfunc_name_hint=f"take_q{bits}"
        )
