"""Keep truth values in memory as int32: shaders for browsers have no type for them there.

Between operators they are 0 and 1; an operator that takes or gives them converts, which fusion puts
into its own kernel.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

_BOOL, _WIDE = "bool", "int32"
# Operators that only move the numbers of their first argument.
_MOVES = frozenset(
    f"relax.{name}"
    for name in (
        "broadcast_to",
        "expand_dims",
        "flatten",
        "gather_elements",
        "index_tensor",
        "permute_dims",
        "repeat",
        "reshape",
        "squeeze",
        "strided_slice",
        "take",
        "tile",
    )
)


@tvm.transform.module_pass(opt_level=0, name="WidenBooleans")
class WidenBooleans:
    """On every Relax function, before operators become kernels."""

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite the functions."""
        widen = _Widen(mod)
        for var, function in mod.functions_items():
            if isinstance(function, relax.Function):
                changed = relax.analysis.remove_all_unused(widen.visit_expr(function))
                widen.builder_.update_func(var, changed)
        return widen.builder_.get()


@mutator
class _Widen(PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        # What variables that were truth values are as numbers.
        self._wide: dict[relax.Var, relax.Expr] = {}

    def visit_var_(self, var: relax.Var) -> relax.Expr:
        return self._truth(var) if var in self._wide else super().visit_var_(var)

    def visit_dataflow_var_(self, var: relax.DataflowVar) -> relax.Expr:
        return self._truth(var) if var in self._wide else super().visit_dataflow_var_(var)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        value = binding.value
        name = getattr(value.op, "name", "") if isinstance(value, relax.Call) else ""
        kept = _and_true(value) if name == "relax.logical_and" else None
        if kept is not None and self._widened(kept):
            # Left as it is, it would become a view of truth values in memory.
            shape = relax.ShapeExpr(binding.var.ty.shape.values)
            same = relax.op.broadcast_to(self._wide[kept], shape)
            self._wide[binding.var] = self.builder_.emit(same)
        elif name == "relax.astype" and self._widened(value.args[0]):
            numbers = self._wide[value.args[0]]
            if str(value.attrs.dtype) not in (_BOOL, _WIDE):
                numbers = self.builder_.emit(relax.op.astype(numbers, value.attrs.dtype))
            self._keep(binding.var, numbers)
        elif name in _MOVES and self._widened(value.args[0]):
            others = [self.visit_expr(argument) for argument in value.args[1:]]
            moved = relax.Call(value.op, [self._wide[value.args[0]], *others], value.attrs)
            self._wide[binding.var] = self.builder_.emit(moved)
        elif isinstance(value, relax.Call) and _is_bool(binding.var):
            truth = self.builder_.emit(self.visit_expr(value))
            self._wide[binding.var] = self.builder_.emit(relax.op.astype(truth, _WIDE))
        else:
            super().visit_var_binding_(binding)

    def visit_match_cast_(self, binding: relax.MatchCast) -> None:
        if self._widened(binding.value):
            ty = relax.TensorType(binding.ty.shape, _WIDE)
            self._wide[binding.var] = self.builder_.match_cast(self._wide[binding.value], ty)
            return
        super().visit_match_cast_(binding)

    def _widened(self, expr: relax.Expr) -> bool:
        return isinstance(expr, relax.Var) and expr in self._wide

    def _truth(self, var: relax.Var) -> relax.Expr:
        return self.builder_.emit(relax.op.astype(self._wide[var], _BOOL))

    def _keep(self, var: relax.Var, value: relax.Expr) -> None:
        """Use ``value`` for a variable of the old function from here on."""
        if _is_bool(var):
            self._wide[var] = value
        else:
            self.set_var_remap(var, value)


def _is_bool(var: relax.Var) -> bool:
    return isinstance(var.ty, relax.TensorType) and str(var.ty.dtype) == _BOOL


def _and_true(call: relax.Call) -> relax.Expr | None:
    """The other operand, if one is the constant that is true."""
    for constant, other in (call.args, list(call.args)[::-1]):
        if isinstance(constant, tvm.ir.GenericConst) and bool(constant.value.numpy().all()):
            return other
    return None
