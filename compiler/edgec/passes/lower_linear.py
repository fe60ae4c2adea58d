"""Give every linear layer the kernel of its platform, quantized or plain.

Two forms are matched: ``edgec.quantized_matmul`` on weights stored as 32-bit words, and
``matmul(x, permute_dims(w))`` on plain weights. Both become one kernel that reads the weights in
the order they are stored, so that nothing is dequantized or transposed into memory.

A kernel may want its activations prepared, such as quantized: that is a kernel of its own, called once
for all layers that read the same activations in the same form.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from edgec.ir.params import extern_call, static_shape
from edgec.models.blocks import QUANTIZED_MATMUL
from edgec.scheduling.kernels.linear import (
    LINEAR,
    Linear,
    LinearKernel,
    LinearKernels,
    Preparation,
)

STEPS = ("batch_decode", "batch_verify")
"""Functions with few rows at a time, which go on from what ``decode`` computed, or take its place."""


@tvm.transform.module_pass(opt_level=0, name="LowerLinear")
class LowerLinear:
    """Args: kernels: makes them. in_steps: makes those in :data:`STEPS`, if others."""

    def __init__(self, kernels: LinearKernels, in_steps: LinearKernels | None = None) -> None:
        self.kernels = kernels
        self.in_steps = in_steps

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite the Relax functions and add the kernels they call."""
        lower = _Lower(mod, self.kernels)
        for var, function in mod.functions_items():
            if isinstance(function, relax.Function):
                if self.in_steps is not None:
                    step = var.name_hint in STEPS
                    lower.use(self.in_steps if step else self.kernels, in_steps=step)
                lower.builder_.update_func(var, lower.visit_expr(function))
        return lower.builder_.get()


@mutator
class _Lower(PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule, kernels: LinearKernels) -> None:
        super().__init__(mod)
        self.use(kernels, in_steps=False)
        self._kernels: dict[tuple[Linear, bool, bool], tuple[relax.GlobalVar, LinearKernel]] = {}
        self._preparing: dict[str, relax.GlobalVar] = {}
        # Of the block that is visited, by the activations and the name of the preparation.
        self._prepared: dict[tuple[relax.Var, str], list[relax.Expr]] = {}

    def use(self, kernels: LinearKernels, *, in_steps: bool) -> None:
        """Take the kernels of the next function from here."""
        self._make, self._in_steps = kernels, in_steps

    def visit_dataflow_block_(self, block: relax.DataflowBlock) -> relax.BindingBlock:
        self._prepared.clear()
        return super().visit_dataflow_block_(block)

    def visit_binding_block_(self, block: relax.BindingBlock) -> relax.BindingBlock:
        self._prepared.clear()
        return super().visit_binding_block_(block)

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
        function, kernel = self._kernel(parameters, single)
        result = self.builder_.emit(
            relax.call_tir(
                function,
                [*self._activations(x, (rows, k), kernel.preparation), *weights],
                out_ty=relax.TensorType((rows, parameters.n), parameters.y_dtype),
            )
        )
        return relax.op.reshape(result, (*outer, parameters.n))

    def _activations(
        self, x: relax.Expr, shape: tuple[Any, Any], preparation: Preparation | None
    ) -> list[relax.Expr]:
        """What a kernel reads in the place of ``x``."""
        if preparation is None:
            return [self.builder_.emit(relax.op.reshape(x, shape))]
        key = (x, preparation.name)
        if key not in self._prepared:
            if preparation.name not in self._preparing:
                function = self.builder_.add_func(preparation.function, preparation.name)
                self._preparing[preparation.name] = function
            flat = self.builder_.emit(relax.op.reshape(x, shape))
            outputs = [relax.TensorType(*output) for output in preparation.outputs(shape[0])]
            prepared = self.builder_.emit(
                relax.call_tir(self._preparing[preparation.name], [flat], out_ty=outputs)
            )
            # What has a single output isn't a tuple.
            self._prepared[key] = [prepared]
            if len(outputs) > 1:
                self._prepared[key] = [
                    self.builder_.emit(relax.TupleGetItem(prepared, index))
                    for index in range(len(outputs))
                ]
        return self._prepared[key]

    def _parameters(self, x: Any, weights: list[Any], out: Any, k: int) -> Linear:
        stored = [(static_shape(weight), str(weight.ty.dtype)) for weight in weights]
        n = int(out.shape.values[-1])
        return Linear.stored(stored, n=n, k=k, x_dtype=str(x.ty.dtype), y_dtype=str(out.dtype))

    def _kernel(self, parameters: Linear, single: bool) -> tuple[relax.GlobalVar, LinearKernel]:
        key = (parameters, single, self._in_steps and not single)
        if key not in self._kernels:
            kernel = self._make(parameters, single=single)
            function = kernel.function.with_attr(LINEAR, parameters.to_json())
            self._kernels[key] = self.builder_.add_func(function, kernel.name), kernel
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
