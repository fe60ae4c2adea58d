"""Put our own kernels of a KV cache in the place of TVM's CPU kernels: attention, rotation, appending.

The KV cache's constructor refers to its kernels by name, so a kernel with the same name and arguments
takes over. The runtime is told of other sizes than the model's (see ``cpu_cache_format``), so that what
a model hands over gets its width here, and what it gets back is cut to its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from edgec.ir.params import extern_call
from edgec.models.rope import Rope
from edgec.scheduling.kernels.cpu_attention import (
    paged_decode,
    paged_prefill,
    ragged_prefill,
    sliding_decode,
    sliding_prefill,
)
from edgec.scheduling.kernels.cpu_attention_blocks import Attention
from edgec.scheduling.kernels.cpu_cache import append, copy_rows, merge, split_rotary

if TYPE_CHECKING:
    from edgec.models.kv_cache import KVCacheSpec
    from edgec.scheduling.kernels.cpu_cache_format import CacheFormat

# Of keys that were rotated when they were appended.
_KERNELS = {
    "batch_decode_paged_kv_cpu": paged_decode,
    "batch_prefill_paged_kv_cpu": paged_prefill,
}
# Of keys that are rotated when they are read, as with sliding windows.
_ROTATING = {
    "batch_prefill_ragged_kv": ragged_prefill,
    "batch_decode_paged_kv_cpu_sliding_window": sliding_decode,
    "batch_prefill_paged_kv_cpu_sliding_window": sliding_prefill,
}
_ROTATION = "fused_rope"
_APPEND = "tir_kv_cache_transpose_append"
_MERGE = "merge_state_inplace_cpu"
_ATTENTION = "vm.builtin.attention_kv_cache_attention_with_fused_qkv"


@tvm.transform.module_pass(opt_level=0, name="ReplaceAttentionCPU")
class ReplaceAttentionCPU:
    """Args: spec: of the cache; vector_bits: width of the registers the kernels may use."""

    def __init__(self, spec: KVCacheSpec, vector_bits: int) -> None:
        shape = Attention(
            heads=spec.heads,
            kv_heads=spec.kv_heads,
            head_dim=spec.head_dim,
            dtype=spec.dtype,
            vector_bits=vector_bits,
            soft_cap=spec.soft_cap,
            window=spec.local_window,
            stored=spec.stored,
        )
        self.format = shape.format
        self.kernels = {name: make(shape) for name, make in _KERNELS.items()}
        if spec.slides:
            rotating = replace(shape, rope=spec.rope)
            self.kernels |= {name: make(rotating) for name, make in _ROTATING.items()}
        else:
            self.kernels["batch_prefill_ragged_kv"] = ragged_prefill(shape)
        # Where the model rotates, the runtime's last argument says that nothing is rotated here.
        rope = spec.rope if spec.rotates else Rope(spec.rope.theta, spec.rope.rotary_dim)
        self.kernels[_ROTATION] = split_rotary(shape, rope, _ROTATION)
        self.kernels[_APPEND] = append(shape, _APPEND)
        self.kernels[_MERGE] = merge(shape, _MERGE)

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Replace the kernels that the cache's constructor brought."""
        by_name = {var.name_hint: var for var in mod.get_global_vars()}
        for name, kernel in self.kernels.items():
            assert name in by_name, f"the KV cache has no kernel {name}"
            mod.update_func(by_name[name], kernel)
        return _Widths(mod, self.format).transform()


@mutator
class _Widths(PyExprMutator):  # type: ignore[misc]
    """Give what goes to attention the runtime's sizes, and what comes from it the model's."""

    def __init__(self, mod: tvm.IRModule, fmt: CacheFormat) -> None:
        super().__init__(mod)
        self._format = fmt

    def transform(self) -> tvm.IRModule:
        """Change every function that calls attention."""
        for var, function in self.builder_.get().functions_items():
            if isinstance(function, relax.Function):
                self.builder_.update_func(var, self.visit_expr(function))
        return self.builder_.get()

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = self.visit_expr_post_order(call)
        name, given = extern_call(call) or ("", [])
        if name != _ATTENTION:
            return call
        fmt = self._format
        *before, qkv = given
        tokens = qkv.ty.shape[0]
        fused = self._resized(qkv, (tokens, fmt.fused))
        wide = self._copied(fused, (fmt.fused, fmt.fused_width))
        wide = self._resized(wide, (tokens, fmt.runtime_heads + 2 * fmt.kv_heads, fmt.row))
        arguments = relax.Tuple([*before, wide])
        out = relax.TensorType((tokens, *fmt.sizes), fmt.dtype)
        result = self.builder_.emit(
            relax.Call(call.op, [call.args[0], arguments], call.attrs, [out])
        )
        result = self._resized(result, (tokens, fmt.query_width))
        result = self._copied(result, (fmt.query_width, fmt.queries))
        return relax.op.reshape(result, (tokens, fmt.heads, fmt.head_dim))

    def _resized(self, x: relax.Expr, shape: tuple[Any, ...]) -> relax.Var:
        return self.builder_.emit(relax.op.reshape(x, shape))

    def _copied(self, x: relax.Var, widths: tuple[int, int]) -> relax.Var:
        """Rows of another width."""
        tokens, dtype = x.ty.shape[0], self._format.dtype
        single = isinstance(tokens, tvm.tirx.IntImm) and int(tokens) == 1
        name = f"copy_rows_{widths[0]}_to_{widths[1]}"
        kernel = self.builder_.add_func(copy_rows(dtype, widths, single=single), name)
        out = relax.TensorType((tokens, widths[1]), dtype)
        return self.builder_.emit(relax.call_tir(kernel, relax.Tuple([x]), out))
