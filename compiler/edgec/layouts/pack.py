"""Stream a quantized checkpoint into a weight folder."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from edgec.layouts.parts import split_tables, table_parts
from edgec.layouts.shard_writer import TensorCacheWriter
from edgec.layouts.shards import Shard, plan_shards
from edgec.layouts.specs import TensorSpec, nbytes, weight_bytes
from edgec.parallel import Workspace, run_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgec.layouts.find import Layout
    from edgec.models.parameters import Parameter
    from edgec.progress import Progress
    from edgec.quantization.reader import QuantizedCheckpoint

STEP = 1 << 20  # bytes that are read, packed, summed and written at a time


def pack_checkpoint(
    quantized: QuantizedCheckpoint,
    parameters: Sequence[Parameter],
    out: Path,
    progress: Progress,
    *,
    layout: Layout,
    threads: int,
    limits: Mapping[str, int] = MappingProxyType({}),
) -> list[TensorSpec]:
    """Write ``tensor-cache.json`` and its shards into an existing folder.

    Holds a few megabytes per thread, whatever the model's size: each shard, also one of a tensor
    larger than the usual shard, is written in pieces of rows. The bytes don't depend on the number
    of threads. Progress counts the bytes that are written.

    Args:
        quantized: all parameters of the model.
        parameters: of the model, in the order of its metadata.
        out: where the files go.
        progress: is told of bytes.
        layout: how quantized parameters are stored.
        threads: that work at once, at least 1.
        limits: of the target's profile; tables larger than its largest buffer are stored in parts.

    Returns:
        What the folder holds, in the order of the parameters.

    Raises:
        CheckpointError: the quantized checkpoint is damaged.
        BuildError: the disk is full.
    """
    schemes = {parameter.name: quantized.scheme(parameter.name) for parameter in parameters}
    whole = layout.tensors(parameters, schemes, quantized.dtype)
    specs = split_tables(whole, table_parts(whole, parameters, limits))
    shards = plan_shards(specs)
    total = weight_bytes(specs)
    progress.start(total, "bytes")
    writer = TensorCacheWriter(out, shards, _metadata(parameters, specs))

    def write(shard: Shard, workspace: Workspace) -> None:
        writer.write_shard(shard, _pieces(quantized, layout, shard, progress, workspace))

    # The largest first, so that no thread is left with one at the end.
    run_all(write, sorted(shards, key=lambda shard: -shard.nbytes), threads=threads)
    writer.finish()
    return specs


def _metadata(parameters: Sequence[Parameter], specs: Sequence[TensorSpec]) -> dict[str, Any]:
    weights = sum(math.prod(parameter.shape) for parameter in parameters)
    total = weight_bytes(specs)
    return {"ParamSize": len(specs), "ParamBytes": total, "BitsPerParam": 8 * total / weights}


def _pieces(
    quantized: QuantizedCheckpoint,
    layout: Layout,
    shard: Shard,
    progress: Progress,
    workspace: Workspace,
) -> Iterator[npt.NDArray[Any]]:
    for placement in shard.placements:
        spec = placement.spec
        rows = spec.shape[0]
        # Parts of tables begin with whole tiles.
        first = spec.first_row // spec.tile
        step = max(1, STEP * rows // nbytes(spec))
        for start in range(first, first + rows, step):
            stop = min(start + step, first + rows)
            if quantized.scheme(spec.parameter) is None:
                piece = quantized.stored(spec.parameter, start, stop, workspace)
            else:
                piece = layout.stored_rows(quantized, spec, start, stop, workspace)
            yield piece
            progress.advance(piece.nbytes)
