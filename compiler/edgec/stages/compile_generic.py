"""Stages 4 to 6 of generic models: lower for one target, schedule the kernels, emit the library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.artifacts.interface import INTERFACE, read_interface
from edgec.artifacts.library_metadata import generic_metadata
from edgec.ir.load import load_tvm
from edgec.layouts.specs import nbytes, weight_bytes
from edgec.stages.lowering import lower, open_imported, write_library

if TYPE_CHECKING:
    from edgec.scheduling.device_limits import KernelNeeds
    from edgec.stages.context import StageContext


def run(context: StageContext) -> None:
    """See the module's docstring. Writes the library and ``library.json``."""
    load_tvm()
    from edgec.passes import tensor_pipeline  # noqa: PLC0415 - after load_tvm
    from edgec.passes.reference_kernels import reference_kernels  # noqa: PLC0415
    from edgec.scheduling.device_limits import check_allocations, check_kernels  # noqa: PLC0415

    inputs = context.inputs
    interface = read_interface(context.parents["checkpoint"] / INTERFACE)
    imported = open_imported(context)
    stored = imported.stored
    lowering = tensor_pipeline.TensorLowering(
        bounds=interface.bounds,
        stored_weights=imported.retyped,
        vector_bits=inputs["target.vector_bits"],
    )
    lowered = lower(
        context,
        imported,
        tensor_pipeline.phases(lowering, imported.target),
        reference_kernels,
        lambda workspace, _largest: generic_metadata(
            model_type=imported.model.family,
            quantization=imported.facts["scheme"],
            interface=interface,
            tensors=stored,
            workspace=workspace,
        ),
    )

    def check(needs: list[KernelNeeds]) -> None:
        limits, name = dict(inputs["target.limits"]), str(inputs["target.name"])
        check_kernels(needs, limits, name)
        check_allocations(stored, lowered.largest, 0, limits, name)

    sizes = {
        "kv_cache_bytes": 0,
        "decode_weights_bytes": weight_bytes(stored),
        "largest_buffer_bytes": max([*map(nbytes, stored), *lowered.largest.values()], default=0),
    }
    write_library(context, imported, lowered, check, sizes)
