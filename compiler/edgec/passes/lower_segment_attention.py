"""Give the attention of encoders the kernel of its platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from edgec.ir.params import extern_call, static_shape
from edgec.models.vision_tower import SEGMENT_ATTENTION
from edgec.scheduling.kernels.segment_attention import Segments

if TYPE_CHECKING:
    from edgec.scheduling.kernels.segment_attention import SegmentKernels


@tvm.transform.module_pass(opt_level=0, name="LowerSegmentAttention")
class LowerSegmentAttention:
    """Args: kernels: makes them; for example ``segment_attention.on_cpu(256)``."""

    def __init__(self, kernels: SegmentKernels) -> None:
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
    def __init__(self, mod: tvm.IRModule, kernels: SegmentKernels) -> None:
        super().__init__(mod)
        self._make = kernels
        self._kernels: dict[Segments, relax.GlobalVar] = {}

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        extern = extern_call(call)
        if extern is None or extern[0] != SEGMENT_ATTENTION:
            return call
        query, key, value, starts = extern[1]
        count, heads, head_dim = static_shape(query)
        segments = Segments(heads, head_dim, str(query.ty.dtype))
        # The kernel has arguments for positions, which nothing reads without rotation.
        positions = relax.const(np.zeros(count, "int32"))
        offsets = relax.const(np.zeros(static_shape(starts)[0] - 1, "int32"))
        results = self.builder_.emit(
            relax.call_tir(
                self._kernel(segments),
                [query, starts, key, value, starts, positions, offsets],
                out_ty=[
                    relax.TensorType((count, heads, head_dim), segments.dtype),
                    relax.TensorType((count, heads), "float32"),
                ],
            )
        )
        return relax.TupleGetItem(results, 0)

    def _kernel(self, segments: Segments) -> relax.GlobalVar:
        if segments not in self._kernels:
            self._kernels[segments] = self.builder_.add_func(self._make(segments), segments.name)
        return self._kernels[segments]
