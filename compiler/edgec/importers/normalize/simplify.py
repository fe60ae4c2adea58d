"""Drop operators that do nothing: translations are full of them."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, sym

from edgec.importers.normalize.straight import Rewrite, each_call, operator


def simplify(mod: tvm.IRModule) -> tvm.IRModule:
    """Replace casts, reshapes, broadcasts and transpositions to what is there already."""
    analyzer = sym.Analyzer()

    def rewrite(step: Rewrite, call: relax.Call) -> Any:
        name = operator(call)
        if name == "relax.permute_dims":
            return _merged(step, call)
        if name not in _SAME_TYPE:
            return None
        before, after = call.args[0].ty, step.builder.normalize(call).ty
        return call.args[0] if _equal(analyzer, before, after) else None

    return each_call(mod, rewrite)


_SAME_TYPE = {
    "relax.astype",
    "relax.broadcast_to",
    "relax.reshape",
    "relax.expand_dims",
    "relax.squeeze",
    "relax.flatten",
}


def _equal(analyzer: Any, before: Any, after: Any) -> bool:
    if not isinstance(before, relax.TensorType) or str(before.dtype) != str(after.dtype):
        return False
    if before.shape is None or after.shape is None or before.ndim != after.ndim:
        return False
    sizes = zip(before.shape.values, after.shape.values, strict=True)
    return all(analyzer.can_prove_equal(one, other) for one, other in sizes)


def _merged(step: Rewrite, call: relax.Call) -> Any:
    """Two transpositions in a row as one, or none."""
    axes = permutation(call)
    source = call.args[0]
    inner = step.value(source)
    if operator(inner) == "relax.permute_dims":
        first = permutation(inner)
        axes = [first[axis] for axis in axes]
        source = inner.args[0]
    if axes == list(range(len(axes))):
        return source
    return relax.op.permute_dims(source, axes)


def permutation(call: relax.Call) -> list[int]:
    """The axes of a ``permute_dims``, counted from the front."""
    ndim = int(call.args[0].ty.ndim)
    axes = call.attrs.axes
    return list(reversed(range(ndim))) if axes is None else [int(axis) % ndim for axis in axes]
