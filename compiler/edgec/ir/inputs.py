"""What a function's inputs are used for."""

from __future__ import annotations

from typing import Any

from tvm import relax

_SAME_IDS = ("relax.reshape", "relax.astype", "relax.flatten", "relax.expand_dims", "relax.squeeze")


def table_rows(function: relax.Function) -> dict[str, int]:
    """Rows of the smallest table that each input indexes, by the input's name.

    Inputs of which no rows are looked up aren't among them.
    """
    origins: dict[relax.Var, str] = {var: var.name for var in function.params}
    found: dict[str, int] = {}

    def visit(expr: Any) -> None:
        if not isinstance(expr, relax.Call) or getattr(expr.op, "name", "") != "relax.take":
            return
        table, ids = expr.args[0], expr.args[1]
        name = origins.get(ids) if isinstance(ids, relax.Var) else None
        if name is None or table.ty.shape is None:
            return
        axis = 0 if expr.attrs.axis is None else int(expr.attrs.axis)
        rows = int(table.ty.shape.values[axis])
        found[name] = min(rows, found.get(name, rows))

    for block in function.body.blocks:
        for binding in block.bindings:
            value = binding.value
            visit(value)
            if isinstance(value, relax.Call) and getattr(value.op, "name", "") in _SAME_IDS:
                source = value.args[0]
                if isinstance(source, relax.Var) and source in origins:
                    origins[binding.var] = origins[source]
    return found
