"""How much memory a planned function asks for."""

from __future__ import annotations

import tvm
from tvm import relax, tirx


def workspace_bytes(mod: tvm.IRModule) -> dict[str, int]:
    """Bytes of static storage by function name, after ``StaticPlanBlockMemory``.

    Results that a function returns are allocated per call and not counted.
    """
    usage: dict[str, int] = {}
    for var, function in mod.functions_items():
        if not isinstance(function, relax.Function):
            continue
        sizes: list[int] = []

        def visit(expr: object, sizes: list[int] = sizes) -> None:
            if not isinstance(expr, relax.Call):
                return
            if getattr(expr.op, "name", "") != "relax.memory.alloc_storage":
                return
            sizes.extend(int(n) for n in expr.args[0].values if isinstance(n, tirx.IntImm))

        relax.analysis.post_order_visit(function.body, visit)
        usage[var.name_hint] = sum(sizes)
    return usage


def runtime_functions(mod: tvm.IRModule) -> list[str]:
    """Names of the functions that the module expects of the runtime, sorted."""
    names: set[str] = set()

    def visit(expr: object) -> None:
        if isinstance(expr, relax.ExternFunc):
            names.add(str(expr.global_symbol))

    for _, function in mod.functions_items():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function.body, visit)
    return sorted(names)
