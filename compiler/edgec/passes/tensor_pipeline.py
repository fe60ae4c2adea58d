"""The order of passes for generic models: the phases of decoders without KV cache and samplers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tvm
from tvm.s_tir import dlight

from edgec.passes import pipeline
from edgec.passes.attach_bounds import AttachBounds
from edgec.passes.lower_linear import LowerLinear
from edgec.passes.lower_quantized_take import LowerQuantizedTake
from edgec.passes.specialize_low_batch import SpecializeLowBatch
from edgec.passes.store_weights import StoreWeights
from edgec.passes.widen_booleans import WidenBooleans
from edgec.scheduling.kernels.cpu_linear import linear_kernels
from edgec.scheduling.rules.cpu import CPUElementwise
from edgec.scheduling.rules.cpu_contraction import CPUContraction
from edgec.scheduling.rules.gpu import default_rules, matmul_rule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.scheduling.kernels.linear import LinearKernels


@dataclass(frozen=True)
class TensorLowering:
    """What the passes need to know of a generic model and a target.

    Attributes:
        bounds: the largest size of each dimension that varies.
        stored_weights: stored types that differ from the logical ones, by weight position.
        vector_bits: width of a CPU's registers; None on GPUs.
    """

    bounds: Mapping[str, int]
    stored_weights: Mapping[int, tuple[tuple[int, ...], str]]
    vector_bits: int | None


def phases(lowering: TensorLowering, target: tvm.target.Target) -> list[tuple[str, list[Any]]]:
    """The phases for a target, up to scheduled TIR."""
    cpu = target.kind.name == "llvm"
    return [
        (
            "0-attach",
            [
                *([WidenBooleans()] if target.kind.name == "webgpu" else []),
                AttachBounds(lowering.bounds),
                tvm.tirx.transform.BindTarget(target),
            ],
        ),
        (
            "1-layout",
            [
                StoreWeights(lowering.stored_weights),
                LowerLinear(_linear_kernels(lowering, target)),
                LowerQuantizedTake(),
            ],
        ),
        (pipeline.FUSED, pipeline.fusion()),
        ("3-schedule", _cpu_rules(lowering) if cpu else _gpu_rules(target)),
    ]


def _linear_kernels(lowering: TensorLowering, target: tvm.target.Target) -> LinearKernels:
    if target.kind.name != "llvm":
        return pipeline.linear_kernels_for(target)
    assert lowering.vector_bits is not None, "a CPU's profile names its vector_bits"
    return linear_kernels(lowering.vector_bits, target)


def _cpu_rules(lowering: TensorLowering) -> list[Any]:
    assert lowering.vector_bits is not None, "a CPU's profile names its vector_bits"
    bits = lowering.vector_bits
    return [dlight.ApplyDefaultSchedule(CPUContraction(bits), CPUElementwise(bits))]


def _gpu_rules(target: tvm.target.Target) -> list[Any]:
    return [
        tvm.tirx.transform.ForceNarrowIndexToInt32(),
        SpecializeLowBatch(matmul_rule(target)),
        dlight.ApplyDefaultSchedule(*default_rules(target)),
    ]
