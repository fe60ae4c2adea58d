"""The order of passes for each platform, in numbered phases.

0 attach    functions that engines expect beside the model's own
1 layout    weights as they are stored, linear layers as kernels
2 fuse      every other operator as TIR, neighbours merged
3 schedule  tuned record, hand-written kernel or rule, in that order
4 runtime   memory plan and the steps down to the virtual machine's instructions

Nothing is left to TVM's default pipelines: on CPUs those legalize operators but don't fuse them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax
from tvm.s_tir import dlight

from edgec.passes.assume_no_alias import AssumeNoAlias
from edgec.passes.attach_alloc_embedding import AttachAllocEmbedding
from edgec.passes.attach_bounds import AttachBounds
from edgec.passes.attach_kv_cache import AttachKVCache
from edgec.passes.attach_logit_functions import AttachLogitFunctions
from edgec.passes.attach_samplers import SAMPLER_FUNCTIONS, AttachSamplers
from edgec.passes.fuse_add_norm import FuseAddNorm
from edgec.passes.fuse_quantize import FuseQuantize
from edgec.passes.keep_planned import KeepPlanned
from edgec.passes.lower_experts import LowerExperts
from edgec.passes.lower_linear import LowerLinear
from edgec.passes.lower_quantized_take import LowerQuantizedTake
from edgec.passes.lower_segment_attention import LowerSegmentAttention
from edgec.passes.order_shape_stores import OrderShapeStores
from edgec.passes.replace_attention_cpu import ReplaceAttentionCPU
from edgec.passes.replace_cache_kernels_gpu import ReplaceCacheKernelsGPU
from edgec.passes.reuse_inputs import ReuseInputs
from edgec.passes.share_tensors import ShareTensors
from edgec.passes.specialize_low_batch import SpecializeLowBatch
from edgec.passes.store_weights import StoreWeights
from edgec.passes.vector_sigmoid import vector_sigmoids
from edgec.passes.web_images import WebImages
from edgec.scheduling.kernels import (
    cpu_logits,
    cpu_norm,
    gpu_linear,
    gpu_logits,
    gpu_norm,
    gpu_tiles,
    segment_attention,
)
from edgec.scheduling.kernels.byte_dots import ByteDots
from edgec.scheduling.kernels.cpu_cache_format import CacheFormat
from edgec.scheduling.kernels.cpu_experts import CPUExperts
from edgec.scheduling.kernels.cpu_linear import (
    kernels_in_steps,
    linear_kernels,
    quantizes_in_producers,
)
from edgec.scheduling.kernels.gpu_experts import GPUExperts
from edgec.scheduling.kernels.gpu_work_group import Limits
from edgec.scheduling.rules.cpu import CPUElementwise
from edgec.scheduling.rules.gpu import default_rules, matmul_rule

if TYPE_CHECKING:
    from edgec.models.kv_cache import KVCacheSpec
    from edgec.scheduling.kernels.linear import LinearKernels

SAMPLERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("cuda", "metal", "vulkan"), SAMPLER_FUNCTIONS),
    # WebLLM draws one sequence at a time, always from the sorted probabilities.
    "webgpu": ("argsort_probs", "sample_with_top_p"),
}
"""What engines call to sample on a device, by its kind; on other kinds they sample on the CPU."""

FUSED = "2-fuse"
"""The phase after which every operator is TIR, without a schedule unless it came with one."""

Dump = Callable[[str, tvm.IRModule], None]


@dataclass(frozen=True)
class Lowering:
    """What the passes need to know of a model and a target.

    Attributes:
        cache: shape of the KV cache.
        vocab_size: entries of the logits.
        hidden_size: of the hidden states.
        dtype: of hidden states.
        prefill_chunk: most tokens of one prefill.
        max_batch_size: most sequences of one batch.
        stored_weights: stored types that differ from the logical ones, by weight position.
        vector_bits: width of a CPU's registers; None on GPUs.
    """

    cache: KVCacheSpec
    vocab_size: int
    hidden_size: int
    dtype: str
    prefill_chunk: int
    max_batch_size: int
    stored_weights: Mapping[int, tuple[tuple[int, ...], str]]
    vector_bits: int | None


def phases(lowering: Lowering, target: tvm.target.Target) -> list[tuple[str, list[Any]]]:
    """The phases for a target, up to scheduled TIR."""
    return (cpu_phases if target.kind.name == "llvm" else gpu_phases)(lowering, target)


def cpu_phases(lowering: Lowering, target: tvm.target.Target) -> list[tuple[str, list[Any]]]:
    """The phases for CPU targets, up to scheduled TIR."""
    vector_bits = lowering.vector_bits
    assert vector_bits is not None, "a CPU's profile names its vector_bits"
    return [
        (
            "0-attach",
            [
                AttachKVCache(lowering.cache, target, CacheFormat.of(lowering.cache).sizes),
                ReplaceAttentionCPU(lowering.cache, vector_bits),
                AttachLogitFunctions(
                    lowering.vocab_size,
                    cpu_logits.logit_kernels(lowering.vocab_size, vector_bits),
                ),
                *_common(lowering, target),
            ],
        ),
        (
            "1-layout",
            [
                StoreWeights(lowering.stored_weights),
                FuseAddNorm(cpu_norm.norm_kernels(vector_bits)),
                LowerLinear(
                    linear_kernels(vector_bits, target), kernels_in_steps(vector_bits, target)
                ),
                # Before experts, whose blocks have other sizes.
                *_quantizing(vector_bits, target),
                LowerExperts(CPUExperts(vector_bits, ByteDots.of(target))),
                LowerSegmentAttention(segment_attention.on_cpu(vector_bits)),
                LowerQuantizedTake(),
            ],
        ),
        (FUSED, fusion(vector_sigmoids())),
        (
            "3-schedule",
            [dlight.ApplyDefaultSchedule(CPUElementwise(vector_bits))],
        ),
    ]


def _quantizing(vector_bits: int, target: tvm.target.Target) -> list[Any]:
    """What makes one kernel of quantization and what comes before it, and drops what that was made of."""
    if not quantizes_in_producers(target):
        return []
    return [FuseQuantize(vector_bits), relax.transform.DeadCodeElimination()]


def gpu_phases(lowering: Lowering, target: tvm.target.Target) -> list[tuple[str, list[Any]]]:
    """The phases for GPU targets, up to scheduled TIR."""
    limits = Limits.of(target)
    names = SAMPLERS.get(target.kind.name, ())
    samplers = [AttachSamplers(lowering.vocab_size, limits, names)] if names else []
    return [
        (
            "0-attach",
            [
                AttachKVCache(lowering.cache, target),
                ReplaceCacheKernelsGPU(lowering.cache, limits, attention=_by_hand(target)),
                AttachLogitFunctions(
                    lowering.vocab_size, gpu_logits.logit_kernels(lowering.vocab_size, limits)
                ),
                *samplers,
                *([WebImages()] if target.kind.name == "webgpu" else []),
                *_common(lowering, target),
            ],
        ),
        (
            "1-layout",
            [
                StoreWeights(lowering.stored_weights),
                FuseAddNorm(gpu_norm.norm_kernels(limits)),
                LowerLinear(linear_kernels_for(target)),
                LowerExperts(GPUExperts()),
                LowerSegmentAttention(segment_attention.on_gpu(target, by_hand=_by_hand(target))),
                LowerQuantizedTake(),
            ],
        ),
        (FUSED, fusion()),
        (
            "3-schedule",
            [
                # 64-bit arithmetic is slow on every GPU of a phone. Before the rules, which don't
                # mix index types.
                tvm.tirx.transform.ForceNarrowIndexToInt32(),
                SpecializeLowBatch(matmul_rule(target)),
                dlight.ApplyDefaultSchedule(*default_rules(target)),
            ],
        ),
    ]


def linear_kernels_for(target: tvm.target.Target) -> LinearKernels:
    """The kernels of linear layers on a GPU: loops for the rules, or in browsers by hand."""
    return gpu_tiles.linear_kernel if _by_hand(target) else gpu_linear.linear_kernel


def _by_hand(target: tvm.target.Target) -> bool:
    """Whether kernels do without sub-groups and with few barriers."""
    return bool(target.kind.name == "webgpu")


def _common(lowering: Lowering, target: tvm.target.Target) -> list[Any]:
    """The end of phase 0 on every platform."""
    bounds = {"seq_len": lowering.prefill_chunk, "batch_size": lowering.max_batch_size}
    return [
        AttachAllocEmbedding(lowering.prefill_chunk, lowering.hidden_size, lowering.dtype),
        AttachBounds(bounds),
        tvm.tirx.transform.BindTarget(target),
    ]


def fusion(legalize: Mapping[str, Any] = MappingProxyType({})) -> list[Any]:
    """Phase 2.

    Args:
        legalize: operators that aren't turned into kernels as TVM does, by name.
    """
    transform = relax.transform
    return [
        transform.LegalizeOps(dict(legalize)),
        # Before fusion, which would turn views into kernels that copy.
        transform.RewriteDataflowReshape(),
        transform.DeadCodeElimination(),
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
    ]


def plan_passes() -> list[Any]:
    """Phase 4 up to the memory plan, after which workspace can be counted."""
    transform = relax.transform
    return [
        ReuseInputs(),
        transform.ToNonDataflow(),
        transform.RemovePurityChecking(),
        transform.CallTIRRewrite(),
        transform.StaticPlanBlockMemory(),
    ]


def machine_passes() -> list[Any]:
    """Phase 4 from the memory plan to the virtual machine."""
    transform = relax.transform
    return [
        ShareTensors(),
        transform.LowerAllocTensor(),
        transform.KillAfterLastUse(),
        KeepPlanned(),
        transform.LowerRuntimeBuiltin(),
        transform.ComputePrimValue(),
        ShareTensors(),
        transform.VMShapeLower(),
        OrderShapeStores(),
        transform.AttachGlobalSymbol(),
        AssumeNoAlias(),
    ]


def apply(mod: tvm.IRModule, passes: list[Any], target: tvm.target.Target) -> tvm.IRModule:
    """Run passes in order under a target."""
    with target:
        for step in passes:
            mod = step(mod)
    return mod
