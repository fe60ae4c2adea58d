"""Put our own kernels of a KV cache in the place of TVM's CPU kernels: attention, rotation, appending.

The KV cache's constructor refers to its kernels by name, so a kernel with the same name and arguments
takes over. Those for token trees stay TVM's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import tvm

from edgec.models.rope import Rope
from edgec.scheduling.kernels.cpu_attention import (
    paged_decode,
    paged_prefill,
    ragged_prefill,
    sliding_decode,
    sliding_prefill,
)
from edgec.scheduling.kernels.cpu_attention_blocks import Attention
from edgec.scheduling.kernels.cpu_cache import append, split_rotary

if TYPE_CHECKING:
    from edgec.models.kv_cache import KVCacheSpec

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
        )
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

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Replace the kernels that the cache's constructor brought."""
        by_name = {var.name_hint: var for var in mod.get_global_vars()}
        for name, kernel in self.kernels.items():
            assert name in by_name, f"the KV cache has no kernel {name}"
            mod.update_func(by_name[name], kernel)
        return mod
