"""How much memory a planned function asks for."""

from __future__ import annotations

import tvm
from tvm import relax, tirx


def workspace_bytes(mod: tvm.IRModule) -> dict[str, int]:
    """Bytes of static storage by function name, after ``StaticPlanBlockMemory``.

    Results that a function returns are allocated per call and not counted.
    """
    return {name: sum(sizes) for name, sizes in _storages(mod).items()}


def largest_buffers(mod: tvm.IRModule) -> dict[str, int]:
    """Bytes of the largest buffer among those of :func:`workspace_bytes`, by function name."""
    return {name: max(sizes, default=0) for name, sizes in _storages(mod).items()}


def _storages(mod: tvm.IRModule) -> dict[str, list[int]]:
    storages: dict[str, list[int]] = {}
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
        storages[var.name_hint] = sizes
    return storages


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
