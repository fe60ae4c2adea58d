"""Model weights in a Relax module: one tuple, the last parameter of each model function."""

from __future__ import annotations

from typing import Any

from tvm import relax, tirx

NAME = "packed_params"


def packed_params(function: Any) -> relax.Var | None:
    """The parameter of a Relax function that holds the weights, if it has one."""
    if not isinstance(function, relax.Function) or not function.params:
        return None
    last = function.params[-1]
    return last if last.name == NAME and isinstance(last.ty, relax.TupleType) else None


def extern_call(call: Any) -> tuple[str, list[Any]] | None:
    """Name and arguments of a ``call_dps_packed`` to an external function."""
    if not isinstance(call, relax.Call) or getattr(call.op, "name", "") != "relax.call_dps_packed":
        return None
    function, arguments = call.args[0], call.args[1]
    if not isinstance(function, relax.ExternFunc):
        return None
    return str(function.global_symbol), list(arguments.fields)


def static_shape(expr: Any) -> tuple[int, ...]:
    """A tensor's shape when all of it is known."""
    return tuple(int(size) for size in expr.ty.shape.values)


def known_sizes(expr: Any) -> tuple[int | None, ...]:
    """A tensor's shape, with None for sizes that aren't known."""
    sizes = expr.ty.shape.values
    return tuple(int(size) if isinstance(size, tirx.IntImm) else None for size in sizes)
