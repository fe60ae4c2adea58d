"""Give the functions that compute shapes an order that is the same in every process.

``VMShapeLower`` gathers what has to be computed at run time in a set ordered by addresses of memory,
and lists the stores of a ``shape_func`` in that order. Where the system places memory at random, two
builds of one module thus differ in a few instructions. The stores don't depend on each other, so they
may as well follow the slots that they fill. The pass comes after ``VMShapeLower``.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import ir, tirx

_MARK = "tirx.is_host_func"


@tvm.transform.module_pass(opt_level=0, name="OrderShapeStores")
class OrderShapeStores:
    """Sort the stores of every ``shape_func`` by the slot of the heap of shapes that they fill."""

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Replace the functions whose stores are in another order."""
        for var, function in mod.functions_items():
            if isinstance(function, tirx.PrimFunc) and function.attrs.get(_MARK):
                body = _ordered(function.body)
                if body is not None:
                    mod.update_func(var, function.with_body(body))
        return mod


def _ordered(body: tirx.Stmt) -> tirx.Stmt | None:
    """The stores by slot; None if the body is anything else than several stores to slots."""
    if not isinstance(body, tirx.SeqStmt):
        return None
    stores = list(body.seq)
    if not all(isinstance(store, tirx.BufferStore) for store in stores):
        return None
    slots = [_slot(store.indices) for store in stores]
    assert not _read(body) & set(slots), "a shape is computed from one that isn't there yet"
    order = sorted(range(len(stores)), key=slots.__getitem__)
    return tirx.SeqStmt([stores[index] for index in order])


def _slot(indices: Any) -> int:
    (index,) = indices
    return int(index)


def _read(body: tirx.Stmt) -> set[int]:
    """The slots that are read."""
    loads: list[ir.TensorLoad] = []
    tvm_ffi.structural_walk(body, [(ir.TensorLoad, loads.append)])
    return {_slot(load.indices) for load in loads}
