"""Stage 7: the quantized checkpoint as a weight folder in the target's layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.layouts.find import find_layout
from edgec.layouts.pack import pack_checkpoint
from edgec.quantization.reader import QuantizedCheckpoint
from edgec.stages.model_file import ModelFile

if TYPE_CHECKING:
    from edgec.stages.context import StageContext


def run(context: StageContext) -> None:
    """Write ``tensor-cache.json`` and its shards."""
    model = ModelFile.read(context.parents["checkpoint"])
    with QuantizedCheckpoint(context.parents["quantize"]) as quantized:
        pack_checkpoint(
            quantized,
            model.parameters,
            context.out,
            context.progress,
            layout=find_layout(str(context.inputs["target.layout"])),
            threads=int(context.local["threads"]),
            limits=dict(context.inputs["target.limits"]),
        )
