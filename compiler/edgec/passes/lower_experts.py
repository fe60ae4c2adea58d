"""Give a mixture of experts the kernels of its platform: routing, and products with stored weights.

Three calls are lowered. ``edgec.choose_experts`` turns logits into the experts of every token.
``edgec.expert_matmul`` and ``edgec.quantized_expert_matmul`` multiply each token by the rows of its
own experts, in the order in which they are stored: nothing is dequantized into memory. Where a
platform's kernel wants tokens grouped by expert, that is done once for all products of a layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from edgec.ir.params import extern_call, static_shape
from edgec.models.moe import CHOOSE_EXPERTS, EXPERT_MATMUL, QUANTIZED_EXPERT_MATMUL
from edgec.scheduling.kernels.cpu_dot import TILE
from edgec.scheduling.kernels.experts import (
    EXPERTS,
    ORDER,
    ROUTING,
    TILE_FIELDS,
    TILES,
    Experts,
    Grouping,
    Routing,
)
from edgec.scheduling.kernels.linear import Linear

if TYPE_CHECKING:
    from edgec.scheduling.kernels.experts import ExpertKernels
    from edgec.scheduling.kernels.linear import Preparation


@tvm.transform.module_pass(opt_level=0, name="LowerExperts")
class LowerExperts:
    """Args: kernels: makes them; for example ``gpu_experts.GPUExperts()``."""

    def __init__(self, kernels: ExpertKernels) -> None:
        self.kernels = kernels

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite the Relax functions and add the kernels they call."""
        lower = _Lower(mod, self.kernels)
        for var, function in mod.functions_items():
            if isinstance(function, relax.Function):
                lower.grouped.clear()
                lower.builder_.update_func(var, lower.visit_expr(function))
        return lower.builder_.get()


@mutator
class _Lower(PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule, kernels: ExpertKernels) -> None:
        super().__init__(mod)
        self._make = kernels
        self._kernels: dict[tuple[Any, ...], relax.GlobalVar] = {}
        self.grouped: dict[relax.Var, tuple[relax.Expr, ...]] = {}

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        extern = extern_call(call)
        if extern is None:
            return call
        name, arguments = extern
        if name == CHOOSE_EXPERTS:
            return self._choose(*arguments, types=list(call.ty_args))
        if name in (EXPERT_MATMUL, QUANTIZED_EXPERT_MATMUL):
            return self._matmul(*arguments, out=call.ty_args[0])
        return call

    def _choose(self, logits: Any, normalized: Any, *, types: list[Any]) -> relax.Expr:
        results = types[0].fields if isinstance(types[0], relax.TupleType) else types
        routing = Routing(
            experts=static_last(logits),
            chosen=int(results[0].shape.values[-1]),
            normalized=bool(int(normalized.value if hasattr(normalized, "value") else normalized)),
        )
        kernel = self._kernel(
            (routing,), routing.name, ROUTING, routing, lambda: self._make.choose(routing)
        )
        return relax.call_tir(kernel, [logits], out_ty=list(results))

    def _matmul(self, x: Any, ids: Any, *weights: Any, out: Any) -> relax.Expr:
        tokens, chosen = ids.ty.shape.values
        slots = tokens * chosen
        *outer, k = x.ty.shape.values
        rows = tokens if len(outer) == 1 else slots
        n = int(out.shape.values[-1])
        linear = self._linear(x, weights, out, int(k))
        stored = static_shape(weights[0])[0] * (TILE if linear.tiled else 1)
        experts = Experts(linear, experts=stored // n, share=int(chosen) if len(outer) == 1 else 1)
        single = isinstance(tokens, tirx.IntImm) and int(tokens) == 1
        flat_ids = self.builder_.emit(relax.op.reshape(ids, (slots,)))
        flat = x if len(outer) == 1 else self.builder_.emit(relax.op.reshape(x, (rows, k)))
        plan = self._make.preparation(experts, slots=int(chosen) if single else None)
        activations = [flat] if plan is None else self._prepared(flat, rows, plan)
        grouping = () if single else self._group(ids, flat_ids, slots, experts)
        form = "one" if single else "many"
        kernel = self._kernel(
            (experts, single),
            f"experts_{form}_{experts.name}",
            EXPERTS,
            experts,
            lambda: self._make.matmul(experts, single=single),
        )
        result = self.builder_.emit(
            relax.call_tir(
                kernel,
                [*activations, flat_ids, *grouping, *weights],
                out_ty=relax.TensorType((slots, n), experts.linear.y_dtype),
            )
        )
        return relax.op.reshape(result, (tokens, chosen, n))

    def _prepared(self, x: relax.Var, rows: Any, plan: Preparation) -> list[relax.Expr]:
        """What a kernel reads in the place of ``x``: one does for both gate and up, and all experts."""
        kernel = self.builder_.add_func(plan.function, plan.name)
        types = [relax.TensorType(*output) for output in plan.outputs(rows)]
        prepared = self.builder_.emit(relax.call_tir(kernel, [x], out_ty=types))
        return [
            self.builder_.emit(relax.TupleGetItem(prepared, index)) for index in range(len(types))
        ]

    def _linear(self, x: Any, weights: tuple[Any, ...], out: Any, k: int) -> Linear:
        stored = [(static_shape(weight), str(weight.ty.dtype)) for weight in weights]
        n = int(out.shape.values[-1])
        return Linear.stored(stored, n=n, k=k, x_dtype=str(x.ty.dtype), y_dtype=str(out.dtype))

    def _group(
        self, ids: Any, flat_ids: relax.Var, slots: Any, experts: Experts
    ) -> tuple[relax.Expr, ...]:
        """The order of the slots and its tiles, if the kernels want them."""
        if self._make.grouping is None:
            return ()
        if ids not in self.grouped:
            grouping = Grouping(experts.experts, self._make.grouping)
            made = dict(self._make.group(grouping))

            def kernel(name: str, attribute: str) -> relax.GlobalVar:
                full = f"expert_{name}_{experts.experts}"
                return self._kernel((grouping, name), full, attribute, grouping, lambda: made[name])

            sizes = [(slots,), (grouping.experts + 1,)]
            both = self.builder_.emit(
                relax.call_tir(
                    kernel("order", ORDER),
                    [flat_ids],
                    out_ty=[relax.TensorType(size, "int32") for size in sizes],
                )
            )
            order = self.builder_.emit(relax.TupleGetItem(both, 0))
            offsets = self.builder_.emit(relax.TupleGetItem(both, 1))
            shape = (grouping.tiles(slots), TILE_FIELDS)
            tiles = self.builder_.emit(
                relax.call_tir(
                    kernel("tiles", TILES), [offsets], out_ty=relax.TensorType(shape, "int32")
                )
            )
            self.grouped[ids] = (order, tiles)
        return self.grouped[ids]

    def _kernel(
        self, key: tuple[Any, ...], name: str, attribute: str, what: Any, make: Any
    ) -> relax.GlobalVar:
        if key not in self._kernels:
            function = make().with_attr(attribute, what.to_json())
            self._kernels[key] = self.builder_.add_func(function, name)
        return self._kernels[key]


def static_last(expr: Any) -> int:
    """The last size of a tensor."""
    return int(expr.ty.shape.values[-1])
