"""Compute a function that was imported in float32 with float16, where that is safe.

Products take float16 and add in float32; norms, softmax and the like stay in float32. Inputs and
outputs keep their types; weights become float16, as they are stored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

if TYPE_CHECKING:
    from collections.abc import Sequence

_HALF, _SINGLE = "float16", "float32"
# Of these the result has the type of the first argument, and no number changes.
_MOVES = ("relax.permute_dims", "relax.reshape", "relax.take")


@tvm.transform.module_pass(opt_level=0, name="HalfPrecision")
class HalfPrecision:
    """Mixed precision on ``main``.

    Args:
        inputs: how many of its parameters aren't weights.
    """

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite ``main``; all weights of type float32 become arguments of type float16."""
        wanted = mod["main"].ret_ty
        # TVM's pass would narrow the arguments too, but can't where shapes are symbolic.
        mixed = relax.transform.ToMixedPrecision(_SINGLE)(mod)
        function = mixed["main"]
        weights = [
            var for var in list(function.params)[self.inputs :] if str(var.ty.dtype) == _SINGLE
        ]
        mixed["main"] = _HalfWeights(mixed, weights).function(function)
        kept = _dtypes(mixed["main"].ret_ty) == _dtypes(wanted)
        assert kept, "mixed precision keeps the types of outputs"
        return mixed


def _dtypes(ty: Any) -> list[str]:
    fields = ty.fields if isinstance(ty, relax.TupleType) else [ty]
    return [str(field.dtype) for field in fields]


@mutator
class _HalfWeights(PyExprMutator):  # type: ignore[misc]
    """Take weights as float16, and move them so before they are widened, if they have to be."""

    def __init__(self, mod: tvm.IRModule, weights: Sequence[relax.Var]) -> None:
        super().__init__(mod)
        # Variables of the old function that have float16, and what they are now.
        self._narrowed: dict[relax.Var, relax.Var] = {}
        # Variables that have float32, and what they are in float16.
        self._half: dict[relax.Var, relax.Var] = {
            var: relax.Var(var.name, relax.TensorType(var.ty.shape, _HALF)) for var in weights
        }

    def function(self, function: relax.Function) -> relax.Function:
        """The function with narrow weights."""
        parameters = [self._half.get(var, var) for var in function.params]
        changed = relax.Function(
            parameters,
            self.visit_expr(function.body),
            function.ret_ty,
            function.is_pure,
            function.attrs,
        )
        return relax.analysis.remove_all_unused(changed)

    def visit_var_(self, var: relax.Var) -> relax.Expr:
        now = self._now(var)
        return super().visit_var_(var) if now is None else now

    def visit_dataflow_var_(self, var: relax.DataflowVar) -> relax.Expr:
        now = self._now(var)
        return super().visit_dataflow_var_(var) if now is None else now

    def _now(self, var: relax.Var) -> relax.Var | None:
        if var in self._narrowed:
            return self._narrowed[var]
        if var in self._half:
            return self.builder_.emit(relax.op.astype(self._half[var], _SINGLE))
        return None

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        value = binding.value
        source = value.args[0] if isinstance(value, relax.Call) and value.args else None
        if isinstance(source, relax.Var) and source in self._half:
            name = getattr(value.op, "name", "")
            if name == "relax.astype" and str(value.attrs.dtype) == _HALF:
                self._narrowed[binding.var] = self._half[source]
                return
            if name in _MOVES:
                others = [self.visit_expr(argument) for argument in value.args[1:]]
                moved = relax.Call(value.op, [self._half[source], *others], value.attrs)
                self._half[binding.var] = self.builder_.emit(moved)
                return
        super().visit_var_binding_(binding)
