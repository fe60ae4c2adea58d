"""Put kernels of our own in the place of those that TVM's KV cache brings for GPUs.

Two of TVM's do on some devices what they shouldn't, its attention is slow in browsers, and it knows
neither soft caps nor layers with a window: see the modules of ours. Attention to pages that slide stays
TVM's, as do the kernels for token trees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvm

from edgec.scheduling.kernels.attention_arguments import Heads
from edgec.scheduling.kernels.gpu_append import append_to_pages
from edgec.scheduling.kernels.gpu_attention import paged_decode, paged_prefill, ragged_prefill
from edgec.scheduling.kernels.gpu_merge import merge_states

if TYPE_CHECKING:
    from edgec.models.kv_cache import KVCacheSpec
    from edgec.scheduling.kernels.gpu_work_group import Limits


@tvm.transform.module_pass(opt_level=0, name="ReplaceCacheKernelsGPU")
class ReplaceCacheKernelsGPU:
    """Args: spec: of the cache; limits: of the device; attention: whether to replace that in any case."""

    def __init__(self, spec: KVCacheSpec, limits: Limits, *, attention: bool) -> None:
        self.kernels = {
            "tir_kv_cache_transpose_append": append_to_pages(
                spec.kv_heads, spec.head_dim, spec.dtype
            ),
            "tir_attention_merge_state": merge_states(spec.head_dim, spec.dtype, limits),
        }
        if attention or not spec.plain:
            heads = Heads(
                spec.heads,
                spec.kv_heads,
                spec.head_dim,
                spec.dtype,
                soft_cap=spec.soft_cap,
                window=spec.local_window,
            )
            self.kernels |= {
                "batch_decode_paged_kv": paged_decode(heads),
                "batch_prefill_paged_kv": paged_prefill(heads),
                "batch_prefill_ragged_kv": ragged_prefill(
                    heads, spec.rope if spec.slides else None
                ),
            }

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Replace the kernels that the cache's constructor brought."""
        by_name = {var.name_hint: var for var in mod.get_global_vars()}
        for name, kernel in self.kernels.items():
            mod.update_func(by_name[name], kernel)
        return mod
