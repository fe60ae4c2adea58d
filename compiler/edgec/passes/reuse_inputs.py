"""Let kernels that say so write their result over what they read.

Such a kernel computes each element of its result from the element in the same place. Rules for
schedules want one tensor to read and another to write, and the memory plan gives each its own memory:
for logits of a long prefill that is a gigabyte. So they become one once kernels are scheduled.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from edgec.models.in_place import IN_PLACE


def in_place(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """The function with its input for its output."""
    read, written = function.params
    return function.specialize({written: read})


@tvm.transform.module_pass(opt_level=0, name="ReuseInputs")
class ReuseInputs:
    """Nothing else may read the inputs after such a kernel."""

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Change the kernels and their calls."""
        kernels = {
            var: function
            for var, function in mod.functions_items()
            if isinstance(function, tirx.PrimFunc) and function.attrs.get(IN_PLACE)
        }
        if not kernels:
            return mod
        rest = {var: function for var, function in mod.functions_items() if var not in kernels}
        calls = _Calls(tvm.IRModule(rest, attrs=mod.attrs), kernels)
        for var, function in rest.items():
            if isinstance(function, relax.Function):
                calls.builder_.update_func(var, calls.visit_expr(function))
        return calls.builder_.get()


@mutator
class _Calls(PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule, kernels: dict[tvm.ir.GlobalVar, tirx.PrimFunc]) -> None:
        super().__init__(mod)
        # Under the same names, which are free here: a variable knows its function's arguments.
        self._kernels = {
            var.name_hint: self.builder_.add_func(in_place(function), var.name_hint)
            for var, function in kernels.items()
        }

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        if call.op != tvm.ir.Op.get("relax.call_tir"):
            return call
        kernel, inputs = call.args[:2]
        if kernel.name_hint not in self._kernels:
            return call
        own = self._kernels[kernel.name_hint]
        return relax.call_tir_inplace(own, inputs, [0], [call.ty_args[0]])
