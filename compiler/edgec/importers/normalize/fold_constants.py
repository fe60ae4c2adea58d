"""Compute what depends on weights alone, once.

Rearrangements and sums of whole weights are done by numpy; what is left are small pieces of
operators, which TVM compiles one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tvm
from tvm import relax, tirx

from edgec.importers.normalize.simplify import permutation
from edgec.importers.normalize.straight import each_call, operator

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgec.importers.normalize.straight import Rewrite

    Array = np.ndarray[Any, np.dtype[np.generic]]


def fold_constants(mod: tvm.IRModule) -> tvm.IRModule:
    """Replace calls of constants by constants."""
    mod = each_call(mod, _by_numpy)
    with tvm.target.Target("llvm"):
        return relax.transform.FoldConstant()(mod)


def _by_numpy(step: Rewrite, call: relax.Call) -> Any:
    compute = _COMPUTE.get(operator(call))
    if compute is None:
        return None
    arrays = []
    for argument in call.args:
        known = step.value(argument)
        if isinstance(known, tvm.ir.GenericConst):
            arrays.append(known.value.numpy())
        elif isinstance(argument.ty, relax.TensorType):
            return None
    ty = step.builder.normalize(call).ty
    if ty.shape is None or not all(isinstance(size, tirx.IntImm) for size in ty.shape.values):
        return None
    with np.errstate(all="ignore"):
        result = compute(call, *arrays)
    shape = [int(size) for size in ty.shape.values]
    views = operator(call) in _VIEWS
    values = result.reshape(shape) if views else np.broadcast_to(result, shape)
    values = np.ascontiguousarray(values.astype(str(ty.dtype))).reshape(shape)
    return relax.const(tvm.runtime.tensor(values))


_VIEWS = {"relax.reshape", "relax.expand_dims", "relax.squeeze"}
_COMPUTE: dict[str, Callable[..., Array]] = {
    "relax.add": lambda _call, a, b: a + b,
    "relax.subtract": lambda _call, a, b: a - b,
    "relax.multiply": lambda _call, a, b: a * b,
    "relax.divide": lambda _call, a, b: a / b,
    "relax.negative": lambda _call, a: -a,
    "relax.sqrt": lambda _call, a: np.sqrt(a),
    "relax.rsqrt": lambda _call, a: 1 / np.sqrt(a),
    "relax.astype": lambda _call, a: a,
    "relax.broadcast_to": lambda _call, a: a,
    "relax.reshape": lambda _call, a: a,
    "relax.expand_dims": lambda _call, a: a,
    "relax.squeeze": lambda _call, a: a,
    "relax.permute_dims": lambda call, a: a.transpose(permutation(call)),
}
"""By operator, on arrays of its tensor arguments; a result is broadcast to the operator's type."""
