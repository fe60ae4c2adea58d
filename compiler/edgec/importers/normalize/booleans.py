"""Arithmetic on truth values, which code generators don't have, as logic or as integers."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from edgec.importers.normalize.straight import Rewrite, each_call, operator

_LOGIC = {
    "relax.add": relax.op.logical_or,
    "relax.maximum": relax.op.logical_or,
    "relax.multiply": relax.op.logical_and,
    "relax.minimum": relax.op.logical_and,
    "relax.bitwise_and": relax.op.logical_and,
    "relax.bitwise_or": relax.op.logical_or,
    "relax.bitwise_xor": relax.op.logical_xor,
    "relax.bitwise_not": relax.op.logical_not,
}
_EXTREMES = {"relax.max", "relax.min"}
_COUNTED = {"relax.cumsum", "relax.cumprod", "relax.sum", "relax.prod", "relax.mean"}


def lower_booleans(mod: tvm.IRModule) -> tvm.IRModule:
    """Sums of truth values count in int32; their elementwise sums and products are logic."""
    return each_call(mod, _rewrite)


def _rewrite(step: Rewrite, call: relax.Call) -> Any:
    name = operator(call)
    if name in _LOGIC and all(_is_bool(argument) for argument in call.args):
        return _LOGIC[name](*call.args)
    if name in _COUNTED and _is_bool(call.args[0]):
        counted = step.emit(relax.op.astype(call.args[0], "int32"))
        return relax.Call(call.op, [counted, *call.args[1:]], call.attrs, call.ty_args)
    if name in _EXTREMES:
        cast = step.value(call.args[0])
        if operator(cast) == "relax.astype" and _is_bool(cast.args[0]):
            # "Any" and "all" of translations, over bytes, which browsers' GPUs don't have.
            counted = step.emit(relax.op.astype(cast.args[0], "int32"))
            return relax.Call(call.op, [counted, *call.args[1:]], call.attrs, call.ty_args)
    return None


def _is_bool(expr: Any) -> bool:
    ty = getattr(expr, "ty", None)
    return isinstance(ty, relax.TensorType) and str(ty.dtype) == "bool"
