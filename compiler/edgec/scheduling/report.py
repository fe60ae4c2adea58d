"""Which source each kernel of a build came from."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx

_ATTENTION = (
    "batch_prefill",
    "batch_decode",
    "batch_tree",
    "tree_attn",
    "merge_state",
    "fused_rope",
    "copy_single_page",
    "compact_kv",
    "tir_kv_cache",
    "kv_cache",
)
_HAND_WRITTEN = ("gemv_", "gemm_", "softmax", "apply_")


def kernel_sources(before: tvm.IRModule, after: tvm.IRModule) -> dict[str, str]:
    """Kernel name to ``hand-written``, ``tvm-kv-cache``, ``rule`` or ``default``.

    Args:
        before: the module when fusion is done, before rules are applied.
        after: the module with all kernels scheduled.
    """
    sources: dict[str, str] = {}
    scheduled_before = {v.name_hint for v, f in before.functions_items() if _scheduled(f)}
    for var, function in after.functions_items():
        if not isinstance(function, tirx.PrimFunc):
            continue
        name = var.name_hint
        if name.startswith(_HAND_WRITTEN):
            sources[name] = "hand-written"
        elif name.startswith(_ATTENTION):
            sources[name] = "tvm-kv-cache"
        elif _scheduled(function) and name not in scheduled_before:
            sources[name] = "rule"
        else:
            sources[name] = "default"
    return dict(sorted(sources.items()))


def _scheduled(function: Any) -> bool:
    return isinstance(function, tirx.PrimFunc) and bool(function.attrs.get("tirx.is_scheduled"))
