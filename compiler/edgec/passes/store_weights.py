"""Give quantized weights the types they are stored in.

A module comes from the importer with logical weights: ``codes`` of dtype int4 or int8 and their
``scales``. A layout says how these lie in memory; this pass changes the types of the weight
tuple to that, and what reads the weights is lowered by the passes that follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from edgec.ir.params import packed_params

if TYPE_CHECKING:
    from collections.abc import Mapping


@tvm.transform.module_pass(opt_level=0, name="StoreWeights")
class StoreWeights:
    """Retype the weight tuple of every model function.

    Args:
        types: shape and dtype that replaces the logical one, by position in the tuple.
    """

    def __init__(self, types: Mapping[int, tuple[tuple[int, ...], str]]) -> None:
        self.types = dict(types)

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite each function that takes the weights."""
        for var, function in mod.functions_items():
            weights = packed_params(function)
            if weights is not None:
                mod[var] = self._retype(mod, function, weights)
        return mod

    def _retype(
        self, mod: tvm.IRModule, function: relax.Function, weights: relax.Var
    ) -> relax.Function:
        fields = list(weights.ty.fields)
        for index, (shape, dtype) in self.types.items():
            fields[index] = relax.TensorType(shape, dtype)
        stored = relax.Var(weights.name, relax.TupleType(fields))
        body = _Replace(mod, weights, stored).visit_expr(function.body)
        return relax.Function(
            [*list(function.params)[:-1], stored],
            body,
            function.ret_ty,
            function.is_pure,
            function.attrs,
        )


@mutator
class _Replace(PyExprMutator):  # type: ignore[misc]
    """Replace one variable; bindings that read it get their types anew."""

    def __init__(self, mod: tvm.IRModule, old: relax.Var, new: relax.Var) -> None:
        super().__init__(mod)
        self._old = old
        self._new = new

    def visit_var_(self, var: relax.Var) -> relax.Expr:
        if var.same_as(self._old):
            return self._new
        return super().visit_var_(var)
