"""Linear layers and lookups in tables in the one form that the passes know.

``matmul`` with a constant matrix, transposed or not, becomes ``matmul(x, permute_dims(w))`` of a
parameter ``w`` ``(out, in)``; ``take`` from a constant table becomes ``take(table, ids, axis=0)``
with ids ``(n,)``. Both are what quantization applies to. A table is an embedding if its ids come
from an input: tables of positions aren't, nor are others whose rows are all read every time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tvm
from tvm import relax, tirx

from edgec.importers.normalize.simplify import permutation
from edgec.importers.normalize.straight import Rewrite, operator
from edgec.importers.raw import TRANSPOSED, constant_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.models.parameters import Role


@dataclass(frozen=True)
class Lifted:
    """A weight that became a parameter.

    Attributes:
        name: of the parameter.
        role: what it is used for.
        value: TVM's tensor.
        transposed: whether the source has it the other way round.
    """

    name: str
    role: Role
    value: Any
    transposed: bool = False

    def array(self) -> np.ndarray[Any, np.dtype[np.generic]]:
        """The values as the parameter has them."""
        array: np.ndarray[Any, np.dtype[np.generic]] = self.value.numpy()
        return np.ascontiguousarray(array.T) if self.transposed else array

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the parameter."""
        shape = tuple(int(size) for size in self.value.shape)
        return shape[::-1] if self.transposed else shape


def linear_form(mod: tvm.IRModule, names: Mapping[Any, str]) -> tuple[tvm.IRModule, list[Lifted]]:
    """Lift the weights of linear layers and tables to parameters, in order of their first use."""
    step = _LinearForm(mod, names)
    return step.run(), list(step.lifted.values())


class _LinearForm(Rewrite):
    def __init__(self, mod: tvm.IRModule, names: Mapping[Any, str]) -> None:
        super().__init__(mod)
        self._names = names
        self._vars: dict[Any, relax.Var] = {}
        self._from_inputs: set[relax.Var] = set(mod["main"].params)
        self.lifted: dict[Any, Lifted] = {}

    def emit(self, expr: relax.Expr) -> relax.Expr:
        var = super().emit(expr)
        if isinstance(var, relax.Var) and var not in self._from_inputs:
            used: list[relax.Var] = []
            relax.analysis.post_order_visit(
                expr, lambda part: used.append(part) if isinstance(part, relax.Var) else None
            )
            if self._from_inputs.intersection(used):
                self._from_inputs.add(var)
        return var

    def call(self, call: relax.Call) -> relax.Expr:
        name = operator(call)
        if name == "relax.matmul":
            return self._linear(call)
        if name == "relax.take":
            return self._lookup(call)
        return call

    def _linear(self, call: relax.Call) -> relax.Expr:
        x, weight = call.args
        value = self.value(weight)
        transposed = operator(value) == "relax.permute_dims" and permutation(value) == [1, 0]
        matrix = self.value(value.args[0]) if transposed else value
        if not _is_table(matrix) or int(x.ty.ndim) < 2:
            return call
        var = self._lift(matrix, "linear", transposed=not transposed)
        return relax.op.matmul(x, self.emit(relax.op.permute_dims(var)), call.attrs.out_dtype)

    def _lookup(self, call: relax.Call) -> relax.Expr:
        table, ids = self.value(call.args[0]), call.args[1]
        by_rows = call.attrs.axis is not None and int(call.attrs.axis) == 0
        if not _is_table(table) or not by_rows or not isinstance(ids.ty, relax.TensorType):
            return call
        if ids not in self._from_inputs:
            return call
        var = self._lift(table, "embedding", transposed=False)
        if int(ids.ty.ndim) == 1:
            return relax.op.take(var, ids, axis=0, mode=call.attrs.mode)
        sizes = list(ids.ty.shape.values)
        count: Any = tirx.IntImm("int64", 1)
        for size in sizes:
            count = count * size
        flat = self.emit(relax.op.reshape(ids, (count,)))
        rows = self.emit(relax.op.take(var, flat, axis=0, mode=call.attrs.mode))
        return relax.op.reshape(rows, (*sizes, var.ty.shape.values[1]))

    def _lift(self, constant: Any, role: Role, *, transposed: bool) -> relax.Var:
        source = constant_key(constant.value)
        key = (source, transposed)
        if key not in self._vars:
            name = self._names.get(source, f"weight_{len(self.lifted)}")
            name += TRANSPOSED if transposed else ""
            if any(other.name == name for other in self.lifted.values()):
                name = f"{name}.{len(self.lifted)}"
            lifted = Lifted(name, role, constant.value, transposed)
            self.lifted[key] = lifted
            dtype = str(constant.value.dtype)
            self._vars[key] = relax.Var(name, relax.TensorType(lifted.shape, dtype))
            self.parameters.append(self._vars[key])
        elif role == "embedding":
            # A table that is the head too: rows of it are looked up, so it counts as a table.
            lifted = self.lifted[key]
            self.lifted[key] = Lifted(lifted.name, role, lifted.value, lifted.transposed)
        return self._vars[key]


def _is_table(expr: Any) -> bool:
    return (
        isinstance(expr, tvm.ir.GenericConst)
        and len(expr.value.shape) == 2
        and str(expr.value.dtype).startswith("float")
    )
