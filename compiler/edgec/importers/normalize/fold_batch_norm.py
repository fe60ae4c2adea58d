"""Batch normalization with fixed statistics as one product and one sum, or less.

After a convolution the product goes into the weights, where it costs nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import tvm
from tvm import relax

from edgec.importers.normalize.straight import Rewrite, operator


def fold_batch_norm(mod: tvm.IRModule) -> tvm.IRModule:
    """Rewrite every ``batch_norm``; what is left of it are constants to fold."""
    return _Fold(mod).run()


class _Fold(Rewrite):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self._uses: Counter[relax.Var] = Counter()

        def visit(expr: Any) -> None:
            if isinstance(expr, relax.Call):
                self._uses.update(arg for arg in expr.args if isinstance(arg, relax.Var))

        relax.analysis.post_order_visit(mod["main"].body, visit)
        self._single: set[relax.Var] = set()

    def _binding(self, binding: Any) -> relax.Expr:
        new = super()._binding(binding)
        if self._uses[binding.var] == 1 and isinstance(new, relax.Var):
            self._single.add(new)
        return new

    def call(self, call: relax.Call) -> relax.Expr:
        if operator(call) != "relax.nn.batch_norm" or bool(call.attrs.training):
            return call
        data, gamma, beta, mean, variance = call.args
        attributes = call.attrs
        dtype = str(variance.ty.dtype)
        spread = self.emit(relax.op.add(variance, relax.const(float(attributes.epsilon), dtype)))
        scale = self.emit(relax.op.rsqrt(spread))
        if attributes.scale:
            scale = self.emit(relax.op.multiply(scale, gamma))
        shift = self.emit(relax.op.negative(self.emit(relax.op.multiply(mean, scale))))
        if attributes.center:
            shift = self.emit(relax.op.add(shift, beta))
        axis, ndim = int(attributes.axis) % int(data.ty.ndim), int(data.ty.ndim)
        scaled = self._scaled(data, scale, axis, ndim)
        result = self.emit(relax.op.add(scaled, self._along(shift, axis, ndim)))
        return relax.Tuple([result, mean, variance])

    def _scaled(self, data: relax.Expr, scale: relax.Expr, axis: int, ndim: int) -> relax.Expr:
        before = self.value(data)
        if operator(before) in _CONVOLUTIONS and axis == 1 and data in self._single:
            weight = before.args[1]
            if isinstance(weight, tvm.ir.GenericConst) and before.attrs.kernel_layout[0] == "O":
                factors = self._along(scale, 0, int(weight.ty.ndim))
                scaled = self.emit(relax.op.multiply(weight, factors))
                arguments = [before.args[0], scaled]
                return self.emit(relax.Call(before.op, arguments, before.attrs, before.ty_args))
        return self.emit(relax.op.multiply(data, self._along(scale, axis, ndim)))

    def _along(self, values: relax.Expr, axis: int, ndim: int) -> relax.Expr:
        """A vector as a tensor of ``ndim`` dimensions that varies along one."""
        shape = [-1 if index == axis else 1 for index in range(ndim)]
        return self.emit(relax.op.reshape(values, shape))


_CONVOLUTIONS = {"relax.nn.conv1d", "relax.nn.conv2d", "relax.nn.conv3d"}
