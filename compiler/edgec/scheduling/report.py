"""Which source each kernel of a build came from."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx

from edgec.scheduling.kernels import HAND_WRITTEN

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


def scheduled_kernels(mod: tvm.IRModule) -> frozenset[str]:
    """Names of the kernels that need no rule: their loops stand as they will run."""
    return frozenset(var.name_hint for var, f in mod.functions_items() if _scheduled(f))


def kernel_sources(before: frozenset[str], after: tvm.IRModule) -> dict[str, str]:
    """Kernel name to ``hand-written``, ``tvm-kv-cache``, ``rule`` or ``unscheduled``.

    Args:
        before: :func:`scheduled_kernels` of the module before rules were applied. A set of names,
            because rules change a module in place.
        after: the module with all kernels scheduled.
    """
    sources: dict[str, str] = {}
    for var, function in after.functions_items():
        if not isinstance(function, tirx.PrimFunc):
            continue
        name = var.name_hint
        if function.attrs.get(HAND_WRITTEN):
            sources[name] = "hand-written"
        elif name.startswith(_ATTENTION):
            sources[name] = "tvm-kv-cache"
        elif _scheduled(function) and name not in before:
            sources[name] = "rule"
        else:
            sources[name] = "unscheduled"
    return dict(sorted(sources.items()))


def _scheduled(function: Any) -> bool:
    return isinstance(function, tirx.PrimFunc) and bool(function.attrs.get("tirx.is_scheduled"))
