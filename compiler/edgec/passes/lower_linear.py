"""Give every linear layer the kernel of its platform, quantized or plain.

Two forms are matched: ``edgec.quantized_matmul`` on weights stored as 32-bit words, and
``matmul(x, permute_dims(w))`` on plain weights. Both become one kernel that reads the weights in
the order they are stored, so that nothing is dequantized or transposed into memory.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from edgec.ir.params import extern_call, static_shape
from edgec.models.blocks import QUANTIZED_MATMUL
from edgec.scheduling.kernels.linear import LINEAR, Linear, LinearKernels


@tvm.transform.module_pass(opt_level=0, name="LowerLinear")
class LowerLinear:
    """Args: kernels: makes them; for example ``cpu_matmul.linear_kernels(256)``."""

    def __init__(self, kernels: LinearKernels) -> None:
        self.kernels = kernels

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite the Relax functions and add the kernels they call."""
        lower = _Lower(mod, self.kernels)
        for var, function in mod.functions_items():
            if isinstance(function, relax.Function):
                lower.builder_.update_func(var, lower.visit_expr(function))
        return lower.builder_.get()


@mutator
class _Lower(PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule, kernels: LinearKernels) -> None:
        super().__init__(mod)
        self._make = kernels
        self._kernels: dict[tuple[Linear, bool], relax.GlobalVar] = {}

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        extern = extern_call(call)
        if extern is not None and extern[0] == QUANTIZED_MATMUL:
            return self._linear(*extern[1], out=call.ty_args[0])
        plain = self._plain(call)
        return call if plain is None else self._linear(*plain, out=self.builder_.normalize(call).ty)

    def _plain(self, call: relax.Call) -> tuple[relax.Expr, relax.Expr] | None:
        """``x`` and ``w`` of ``matmul(x, permute_dims(w))`` where ``w`` has two known sizes."""
        if getattr(call.op, "name", "") != "relax.matmul" or not isinstance(
            call.args[1], relax.Var
        ):
            return None
        transposed = self.lookup_binding(call.args[1])
        if getattr(getattr(transposed, "op", None), "name", "") != "relax.permute_dims":
            return None
        weight, axes = transposed.args[0], transposed.attrs.axes
        swaps = axes is None or [int(axis) for axis in axes] == [1, 0]
        sizes = list(weight.ty.shape.values)
        known = all(isinstance(size, tirx.IntImm) for size in sizes)
        return (call.args[0], weight) if len(sizes) == 2 and swaps and known else None

    def _linear(self, x: relax.Expr, *weights: relax.Expr, out: Any) -> relax.Expr:
        *outer, k = list(x.ty.shape.values)
        rows = _product(outer)
        parameters = self._parameters(x, list(weights), out, int(k))
        single = isinstance(rows, int) and rows == 1
        flat = self.builder_.emit(relax.op.reshape(x, (rows, k)))
        result = self.builder_.emit(
            relax.call_tir(
                self._kernel(parameters, single),
                [flat, *weights],
                out_ty=relax.TensorType((rows, parameters.n), parameters.y_dtype),
            )
        )
        return relax.op.reshape(result, (*outer, parameters.n))

    def _parameters(self, x: Any, weights: list[Any], out: Any, k: int) -> Linear:
        n, words = static_shape(weights[0])
        common: dict[str, Any] = {
            "n": n,
            "k": k,
            "x_dtype": str(x.ty.dtype),
            "y_dtype": str(out.dtype),
            "w_dtype": str(weights[0].ty.dtype),
        }
        if len(weights) == 1:
            return Linear(**common)
        groups = static_shape(weights[1])[1]
        return Linear(
            **common,
            bits=32 * words // k,
            group=k // groups,
            scale_dtype=str(weights[1].ty.dtype),
        )

    def _kernel(self, parameters: Linear, single: bool) -> relax.GlobalVar:
        key = (parameters, single)
        if key not in self._kernels:
            name, function = self._make(parameters, single=single)
            function = function.with_attr(LINEAR, parameters.to_json())
            self._kernels[key] = self.builder_.add_func(function, name)
        return self._kernels[key]


def _product(sizes: list[Any]) -> Any:
    """The product of sizes, without the ones; an int when all are known."""
    result: Any = 1
    for size in sizes:
        value = int(size) if isinstance(size, tirx.IntImm) else size
        if isinstance(value, int) and value == 1:
            continue
        result = value if isinstance(result, int) and result == 1 else result * value
    return result
