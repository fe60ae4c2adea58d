"""The meaning of each kernel of a module, as functions that the CPU's code generator takes.

A GPU kernel is checked alone by calling it and the function of the same name made here on the same
arguments. Where a rule will schedule a kernel, that is the kernel as it is before: loops without
threads. A kernel that comes scheduled from TVM's KV cache has a twin among TVM's kernels for CPUs, with
the same arguments in the same order and written independently; so do the logit functions. Attention
with soft caps or layers' windows, which TVM hasn't, and linear layers and norms are their definitions
in loops, whatever kernel a platform has for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvm
from tvm import tirx

from edgec.models.in_place import IN_PLACE
from edgec.passes.attach_kv_cache import AttachKVCache
from edgec.passes.reuse_inputs import in_place
from edgec.scheduling.kernels import (
    cpu_experts,
    cpu_logits,
    dot_meaning,
    experts_meaning,
    segment_attention,
)
from edgec.scheduling.kernels.attention_arguments import Heads
from edgec.scheduling.kernels.attention_meaning import attention_meanings
from edgec.scheduling.kernels.experts import (
    EXPERTS,
    ORDER,
    ROUTING,
    TILES,
    Experts,
    Grouping,
    Routing,
)
from edgec.scheduling.kernels.gpu_linear import linear_kernel
from edgec.scheduling.kernels.gpu_norm import NORM, Norm
from edgec.scheduling.kernels.linear import LINEAR, Linear
from edgec.scheduling.kernels.norm_meaning import norm_meaning
from edgec.scheduling.kernels.quantize_rows import BESIDE, QUANTIZE, WORD, QuantizedRows

if TYPE_CHECKING:
    from edgec.models.kv_cache import KVCacheSpec

_CPU = {"kind": "llvm"}
_TWINS = {
    "batch_decode_paged_kv": "batch_decode_paged_kv_cpu",
    "batch_decode_paged_kv_sliding_window": "batch_decode_paged_kv_cpu_sliding_window",
    "batch_prefill_paged_kv": "batch_prefill_paged_kv_cpu",
    "batch_prefill_paged_kv_sliding_window": "batch_prefill_paged_kv_cpu_sliding_window",
    "batch_prefill_ragged_kv": "batch_prefill_ragged_kv",
    "batch_tree_attn": "batch_tree_attn",
    "compact_kv_copy": "compact_kv_copy_cpu",
    "copy_single_page": "copy_single_page_cpu",
    "tir_attention_merge_state": "merge_state_inplace_cpu",
    "tir_kv_cache_transpose_append": "tir_kv_cache_transpose_append",
    "tree_attn_paged_kv": "tree_attn_paged_kv_cpu",
}
"""Kernel of TVM's KV cache on GPUs to the one on CPUs."""
_ON_CPUS = _TWINS["batch_decode_paged_kv"]
_ROTATION = "fused_rope"


def reference_kernels(
    mod: tvm.IRModule, cache: KVCacheSpec | None = None, vocab_size: int | None = None
) -> tvm.IRModule:
    """A module of functions for the CPU, named as the kernels of ``mod`` that they stand for.

    Args:
        mod: fused, before rules have scheduled it.
        cache: the model's KV cache; None for a model without one.
        vocab_size: entries of the logits; None for a model without them.

    Returns:
        A reference for each kernel that has one. Kernels that draw tokens have none here: the
        functions made of them are checked as a whole.
    """
    twins = {} if cache is None else _cache_kernels(mod) or _kv_cache_twins(cache)
    twins |= {} if vocab_size is None else _logit_twins(vocab_size)
    references: dict[str, tirx.PrimFunc] = {}
    for var, function in mod.functions_items():
        name = var.name_hint
        if not isinstance(function, tirx.PrimFunc):
            continue
        if name in twins:
            references[name] = twins[name]
            continue
        meaning = _linear_meaning(function) or _expert_meaning(function)
        if meaning is not None:
            references[name] = meaning
        elif (norm := function.attrs.get(NORM)) is not None:
            references[name] = norm_meaning(Norm.from_json(str(norm)))
        elif (segments := function.attrs.get(segment_attention.SEGMENTS)) is not None:
            heads = segment_attention.Segments.from_json(str(segments))
            references[name] = segment_attention.meaning(heads)
        elif function.attrs.get(IN_PLACE):
            references[name] = in_place(function).without_attr("target")
        elif not function.attrs.get("tirx.is_scheduled"):
            references[name] = function.without_attr("target")
    return tvm.IRModule(
        {
            name: function.with_attr("global_symbol", name)
            for name, function in sorted(references.items())
        }
    )


def _linear_meaning(function: tirx.PrimFunc) -> Any:
    """What a linear layer's kernel, or one that prepares its activations, computes; None for others."""
    if (rows := function.attrs.get(QUANTIZE)) is not None:
        what = QuantizedRows.from_json(str(rows))
        return dot_meaning.quantize(what, single=_single(function.params[0]))
    attribute = function.attrs.get(LINEAR)
    if attribute is None:
        return None
    layer, single = Linear.from_json(str(attribute)), _single(function.params[-1])
    if not layer.tiled:
        return linear_kernel(layer, single=single).function
    # Words of four columns, side by side for all rows of a block.
    block = int(function.params[0].shape[1]) * WORD // layer.k
    beside = int(function.attrs.get(BESIDE, 1))
    return dot_meaning.matmul(layer, block, beside, single=single)


def _single(rows: Any) -> bool:
    """Whether an argument always has one row."""
    return isinstance(rows.shape[0], tirx.IntImm)


def _expert_meaning(function: tirx.PrimFunc) -> Any:
    """What a kernel for a mixture of experts computes; None for other kernels."""

    def attribute(name: str) -> str | None:
        value = function.attrs.get(name)
        return None if value is None else str(value)

    if (routing := attribute(ROUTING)) is not None:
        return cpu_experts.choose(Routing.from_json(routing))
    if (order := attribute(ORDER)) is not None:
        return experts_meaning.order(Grouping.from_json(order))
    if (tiles := attribute(TILES)) is not None:
        return experts_meaning.tiles(Grouping.from_json(tiles))
    if (experts := attribute(EXPERTS)) is not None:
        layer = Experts.from_json(experts)
        ungrouped = len(("x", "ids", "w", "y")) + bool(layer.linear.bits) + layer.linear.zeros
        return experts_meaning.expert_matmul(layer, grouped=len(function.params) > ungrouped)
    return None


def _cache_kernels(mod: tvm.IRModule) -> dict[str, Any]:
    """On CPUs the kernels of a cache themselves, made for this machine.

    No others take rows of the cache's own formats; tests show what they compute.
    """
    found = {var.name_hint: function for var, function in mod.functions_items()}
    if _ON_CPUS not in found:
        return {}
    kernels = {*_TWINS.values(), _ROTATION} & found.keys()
    return {name: found[name].without_attr("target") for name in kernels}


def _kv_cache_twins(cache: KVCacheSpec) -> dict[str, Any]:
    attach = AttachKVCache(cache, tvm.target.Target(_CPU))
    mod = tvm.transform.Sequential([attach])(tvm.IRModule())
    by_name = {var.name_hint: function for var, function in mod.functions_items()}
    if not cache.plain:
        heads = Heads(
            cache.heads,
            cache.kv_heads,
            cache.head_dim,
            cache.dtype,
            soft_cap=cache.soft_cap,
            window=cache.local_window,
        )
        by_name |= {_TWINS[gpu]: f for gpu, f in attention_meanings(heads).items()}
    pairs = [(gpu, cpu) for gpu, cpu in _TWINS.items() if cpu in by_name]
    return {name: by_name[cpu] for gpu, cpu in pairs for name in (gpu, cpu)}


def _logit_twins(vocab_size: int) -> dict[str, Any]:
    functions = [
        make(vocab_size)
        for make in (
            cpu_logits.apply_logit_bias,
            cpu_logits.apply_penalty,
            cpu_logits.apply_bitmask,
        )
    ]
    return {str(function.attrs["global_symbol"]): function for function in functions}
