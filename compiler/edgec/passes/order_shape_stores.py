"""Give the functions that compute shapes an order that is the same in every process.

``VMShapeLower`` gathers what has to be computed at run time in a set ordered by addresses of memory,
and lists the stores of a ``shape_func`` in that order. Where the system places memory at random, two
builds of one module thus differ in a few instructions, and in the number of these functions: two
callers share one only if both were listed alike. The stores don't depend on each other, so they may as
well follow the slots that they fill, and then equal functions are made one and counted anew. The pass
comes after ``VMShapeLower``, before functions are given their symbols.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import ir, relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

_MARK = "tirx.is_host_func"
_NAME = "shape_func"


@tvm.transform.module_pass(opt_level=0, name="OrderShapeStores")
class OrderShapeStores:
    """Sort the stores of every ``shape_func`` by the slot of the heap of shapes that they fill."""

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Replace the functions by ordered ones, numbered by their first callers' names."""
        found: dict[ir.GlobalVar, Any] = {}
        others: dict[ir.GlobalVar, Any] = {}
        for var, function in mod.functions_items():
            shapes = isinstance(function, tirx.PrimFunc) and function.attrs.get(_MARK)
            named = str(var.name_hint).startswith(_NAME)
            (found if shapes and named else others)[var] = function
        bare = tvm.IRModule(others, attrs=mod.attrs, global_infos=mod.global_infos)
        numbered = _Numbered(bare, {var: _ordered(function) for var, function in found.items()})
        for var in sorted(others, key=lambda var: str(var.name_hint)):
            if isinstance(others[var], relax.Function):
                numbered.builder_.update_func(var, numbered.visit_expr(others[var]))
        return numbered.builder_.get()


@mutator
class _Numbered(PyExprMutator):  # type: ignore[misc]
    """Callers of equal functions call the first of them.

    Args:
        mod: without the functions.
        functions: by the name that they are called by.
    """

    def __init__(self, mod: tvm.IRModule, functions: dict[ir.GlobalVar, tirx.PrimFunc]) -> None:
        super().__init__(mod)
        self._functions = functions

    def visit_global_var_(self, var: ir.GlobalVar) -> relax.Expr:
        """The name of the equal function that was added before, if there is one."""
        if var not in self._functions:
            return var
        return self.builder_.add_func(self._functions[var], _NAME)


def _ordered(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """The function with its stores ordered by slot, if it is several stores to slots and nothing else."""
    body = function.body
    if not isinstance(body, tirx.SeqStmt):
        return function
    stores = list(body.seq)
    if not all(isinstance(store, tirx.BufferStore) for store in stores):
        return function
    slots = [_slot(store.indices) for store in stores]
    assert not _read(body) & set(slots), "a shape is computed from one that isn't there yet"
    order = sorted(range(len(stores)), key=slots.__getitem__)
    return function.with_body(tirx.SeqStmt([stores[index] for index in order]))


def _slot(indices: Any) -> int:
    (index,) = indices
    return int(index)


def _read(body: tirx.Stmt) -> set[int]:
    """The slots that are read."""
    loads: list[ir.TensorLoad] = []
    tvm_ffi.structural_walk(body, [(ir.TensorLoad, loads.append)])
    return {_slot(load.indices) for load in loads}
