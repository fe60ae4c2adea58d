"""Stage 2: one quantized checkpoint for all targets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgec.checkpoints import open_checkpoint
from edgec.quantization.run import quantize_checkpoint
from edgec.quantization.takeover import taken_over
from edgec.stages.model_file import ModelFile
from edgec.stages.quantization_inputs import read_scheme, read_schemes

if TYPE_CHECKING:
    from edgec.stages.context import StageContext


def run(context: StageContext) -> None:
    """Stream every parameter through the recipe's method, or take its codes over."""
    model = ModelFile.read(context.parents["checkpoint"])
    inputs = context.inputs
    scheme = read_scheme(inputs)
    schemes = read_schemes(model.parameters, inputs, model.codes)
    checkpoint = open_checkpoint(
        # A generic model's weights were written by the stage before.
        str(context.local["source"] or context.parents["checkpoint"]),
        Path(str(context.local["base"])),
        seed=int(context.local["seed"]),
        tensors=lambda _config: model.sources,
    )
    quantize_checkpoint(
        checkpoint,
        model.parameters,
        schemes,
        scheme.dtype,
        str(inputs["quantization.method"]),
        context.out,
        context.progress,
        threads=int(context.local["threads"]),
    )
    taken = taken_over(checkpoint, model.parameters, schemes)
    if taken:
        matrices = sum(scheme is not None for scheme in schemes.values())
        context.progress.note(
            f"took the codes of {len(taken)} of {matrices} matrices over from the checkpoint"
        )
