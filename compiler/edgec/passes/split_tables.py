"""Read tables that are stored in parts: see ``layouts.parts``.

A linear layer on such a table becomes one on each part, whose outputs are joined; a lookup becomes
one kernel that reads the part that has the row. Nothing is added, so both give exactly what the
whole table would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from edgec.ir.params import extern_call, packed_params
from edgec.models.blocks import QUANTIZED_MATMUL, QUANTIZED_TAKE
from edgec.passes.table_lookup import lookup, rows_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Stored = tuple[tuple[int, ...], str]
"""The shape and the dtype of a stored tensor."""


@tvm.transform.module_pass(opt_level=0, name="SplitTables")
class SplitTables:
    """Replace weights of the tuple by their parts, in every model function.

    It comes before the passes that store the other weights and lower linear layers and lookups.

    Args:
        parts: the shape and dtype of each part as it is stored, by the weight's position in the
            tuple; those that are left out stay whole. The parts of a table's codes have the rows
            of those of its scales and zero points.
    """

    def __init__(self, parts: Mapping[int, Sequence[Stored]]) -> None:
        self.parts = {index: tuple(stored) for index, stored in parts.items()}

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite each function that takes the weights, and add the kernels of lookups."""
        split = _Split(mod, self.parts)
        for var, function in mod.functions_items():
            weights = packed_params(function)
            if weights is not None:
                split.builder_.update_func(var, split.function(function, weights))
        return split.builder_.get()


@mutator
class _Split(PyExprMutator):  # type: ignore[misc]
    """Give every reader of a split table its parts, one function after another."""

    def __init__(self, mod: tvm.IRModule, parts: Mapping[int, tuple[Stored, ...]]) -> None:
        super().__init__(mod)
        self._parts = parts
        # The tuple of whole weights, the one with parts, and the new position of each old weight
        # or of its first part.
        self._old: relax.Var
        self._new: relax.Var
        self._positions: list[int]
        # Variables of the function as it was, and the position of the table that they hold.
        self._tables: dict[relax.Var, int] = {}
        self._transposed: dict[relax.Var, int] = {}

    def function(self, function: relax.Function, weights: relax.Var) -> relax.Function:
        """A function that takes parts; ``weights`` is its tuple of whole weights."""
        fields: list[Any] = []
        self._positions = []
        for index, field in enumerate(weights.ty.fields):
            self._positions.append(len(fields))
            stored = self._parts.get(index)
            fields += [relax.TensorType(*part) for part in stored] if stored else [field]
        self._old, self._new = weights, relax.Var(weights.name, relax.TupleType(fields))
        changed = relax.Function(
            [*list(function.params)[:-1], self._new],
            self.visit_expr(function.body),
            function.ret_ty,
            function.is_pure,
            function.attrs,
        )
        return relax.analysis.remove_all_unused(changed)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        value = binding.value
        if isinstance(value, relax.TupleGetItem) and value.tuple_value.same_as(self._old):
            if value.index in self._parts:
                self._tables[binding.var] = value.index
                return
        elif _is_op(value, "relax.permute_dims") and value.args[0] in self._tables:
            self._transposed[binding.var] = self._tables[value.args[0]]
            return
        super().visit_var_binding_(binding)

    def visit_tuple_getitem_(self, item: relax.TupleGetItem) -> relax.Expr:
        if item.tuple_value.same_as(self._old):
            return relax.TupleGetItem(self._new, self._positions[item.index])
        return super().visit_tuple_getitem_(item)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        extern = extern_call(call)
        if extern is not None and extern[0] in (QUANTIZED_MATMUL, QUANTIZED_TAKE):
            name, (x, *stored) = extern
            if stored[0] in self._tables:
                made = self._linear if name == QUANTIZED_MATMUL else self._lookup
                tables = tuple(self._tables[item] for item in stored)
                return made(self.visit_expr(x), tables, call.ty_args[0])
        elif _is_op(call, "relax.matmul") and call.args[1] in self._transposed:
            table = self._transposed[call.args[1]]
            return self._linear(self.visit_expr(call.args[0]), (table,), call.ty)
        elif _is_op(call, "relax.take") and call.args[0] in self._tables:
            table = self._tables[call.args[0]]
            return self._lookup(self.visit_expr(call.args[1]), (table,), call.ty)
        return super().visit_call_(call)

    def _linear(self, x: relax.Expr, tables: tuple[int, ...], out: Any) -> relax.Expr:
        """``x @ table.T``, by parts."""
        *outer, columns = list(out.shape.values)
        dtype = str(out.dtype)
        outputs, first = [], 0
        for part, (stored, _) in enumerate(self._parts[tables[0]]):
            # The last tile may have fewer rows.
            rows = min(rows_of(stored), int(columns) - first)
            first += rows
            weights = self._weights(tables, part)
            if len(weights) == 1:
                transposed = self.builder_.emit(relax.op.permute_dims(weights[0]))
                y = relax.op.matmul(x, transposed, out_dtype=dtype)
            else:
                shape = relax.TensorType((*outer, rows), dtype)
                y = relax.call_dps_packed(QUANTIZED_MATMUL, [x, *weights], out_ty=shape)
            outputs.append(self.builder_.emit(y))
        return relax.op.concat(outputs, axis=-1)

    def _lookup(self, ids: relax.Expr, tables: tuple[int, ...], out: Any) -> relax.Expr:
        """Rows ``ids`` ``(n,)`` of a table."""
        parts = [self._weights(tables, part) for part, _ in enumerate(self._parts[tables[0]])]
        columns = int(out.shape.values[-1])
        return self.builder_.call_te(
            lookup, ids, parts, columns, str(out.dtype), primfunc_name_hint="take_parts"
        )

    def _weights(self, tables: tuple[int, ...], part: int) -> list[relax.Var]:
        """A part of the plain table, or of its codes, scales and perhaps zero points."""
        return [
            self.builder_.emit(relax.TupleGetItem(self._new, self._positions[table] + part))
            for table in tables
        ]


def _is_op(expr: relax.Expr, name: str) -> bool:
    return isinstance(expr, relax.Call) and getattr(expr.op, "name", "") == name
