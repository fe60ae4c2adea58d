"""Write the logistic function out in arithmetic that vectorizes.

TVM asks the C library for an exponential per number, which costs more than all else an activation
does. Written out, a kernel's last axis is vectorized like the rest of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tvm import te, tirx

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tvm import relax

_FLOAT = "float32"
_DEGREE = 6


def vector_sigmoids() -> Mapping[str, Callable[[relax.BlockBuilder, relax.Call], relax.Expr]]:
    """How ``LegalizeOps`` turns operators with a logistic function into kernels on CPUs."""

    def silu(x: Any) -> Any:
        return x * sigmoid(x)

    return {"relax.sigmoid": _elementwise(sigmoid), "relax.nn.silu": _elementwise(silu)}


def _elementwise(function: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """A kernel of a function of one number, computed in float32."""

    def compute(x: te.Tensor) -> te.Tensor:
        def value(*place: Any) -> Any:
            return function(x(*place).astype(_FLOAT)).astype(x.dtype)

        return te.compute(x.shape, value, name=function.__name__)

    def legalize(builder: Any, call: Any) -> Any:
        return builder.call_te(compute, call.args[0], primfunc_name_hint=function.__name__)

    return legalize


def sigmoid(x: Any) -> Any:
    """``1 / (1 + exp(-x))`` within 3e-7 of the value, of a float32 expression.

    The power of two is found by its exponent's bits and a Taylor polynomial of degree 6 within 1/2 of
    0, whose remainder is below 2e-7. Beyond 87 it stays where it is, at 0 or 1 but for 1e-38.
    """
    scaled, whole, rest = (tirx.Var(name, _FLOAT) for name in ("scaled", "whole", "rest"))
    limit = _number(126.0)
    power = _number(math.log(2) ** _DEGREE / math.factorial(_DEGREE))
    for degree in range(_DEGREE - 1, -1, -1):
        power = power * rest + _number(math.log(2) ** degree / math.factorial(degree))
    exponent = whole.astype("int32") + tirx.const(127, "int32")
    bits = tirx.shift_left(exponent, tirx.const(23, "int32"))
    result = _number(1.0) / (_number(1.0) + power * tirx.reinterpret(_FLOAT, bits))
    result = tirx.Let(rest, scaled - whole, result)
    result = tirx.Let(whole, tirx.floor(scaled + _number(0.5)), result)
    clamped = tirx.min(tirx.max(x * _number(-math.log2(math.e)), -limit), limit)
    return tirx.Let(scaled, clamped, result)


def _number(value: float) -> Any:
    return tirx.const(value, _FLOAT)
