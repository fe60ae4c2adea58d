"""Stream a quantized checkpoint into a weight folder in the MLC layout."""

from __future__ import annotations

import math
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from edgec.layouts.mlc import (
    WEIGHT,
    ZERO,
    scales_in_place,
    tensors,
    words_in_place,
    zero_words,
)
from edgec.layouts.parts import split_tables, table_parts
from edgec.layouts.shard_writer import TensorCacheWriter
from edgec.layouts.shards import Shard, plan_shards
from edgec.layouts.specs import TensorSpec, nbytes, weight_bytes
from edgec.parallel import Workspace, run_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

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
        threads: that work at once, at least 1.
        limits: of the target's profile; tables larger than its largest buffer are stored in parts.

    Returns:
        What the folder holds, in the order of the parameters.

    Raises:
        CheckpointError: the quantized checkpoint is damaged.
        BuildError: the disk is full.
    """
    schemes = {parameter.name: quantized.scheme(parameter.name) for parameter in parameters}
    whole = tensors(parameters, schemes, quantized.dtype)
    specs = split_tables(whole, table_parts(whole, parameters, limits))
    shards = plan_shards(specs)
    total = weight_bytes(specs)
    progress.start(total, "bytes")
    writer = TensorCacheWriter(out, shards, _metadata(parameters, specs))

    def write(shard: Shard, workspace: Workspace) -> None:
        writer.write_shard(shard, _pieces(quantized, shard, progress, workspace))

    # The largest first, so that no thread is left with one at the end.
    run_all(write, sorted(shards, key=lambda shard: -shard.nbytes), threads=threads)
    writer.finish()
    return specs


def _metadata(parameters: Sequence[Parameter], specs: Sequence[TensorSpec]) -> dict[str, Any]:
    weights = sum(math.prod(parameter.shape) for parameter in parameters)
    total = weight_bytes(specs)
    return {"ParamSize": len(specs), "ParamBytes": total, "BitsPerParam": 8 * total / weights}


def _pieces(
    quantized: QuantizedCheckpoint, shard: Shard, progress: Progress, workspace: Workspace
) -> Iterator[npt.NDArray[Any]]:
    for placement in shard.placements:
        spec = placement.spec
        rows = spec.shape[0]
        step = max(1, STEP * rows // nbytes(spec))
        read = partial(_read, quantized, spec, workspace)
        for start in range(0, rows, step):
            piece = read(start, min(start + step, rows))
            yield piece
            progress.advance(piece.nbytes)


def _read(
    quantized: QuantizedCheckpoint, spec: TensorSpec, workspace: Workspace, start: int, stop: int
) -> npt.NDArray[Any]:
    """Rows of a stored tensor, in the workspace."""
    parameter = spec.parameter
    start, stop = spec.first_row + start, spec.first_row + stop
    scheme = quantized.scheme(parameter)
    if scheme is None:
        return quantized.stored(parameter, start, stop, workspace)
    if spec.name.endswith(f".{ZERO}"):
        zeros = quantized.stored(f"{parameter}#zeros", start, stop, workspace)
        return zero_words(zeros, scheme.bits)
    if not spec.name.endswith(f".{WEIGHT}"):
        scales = quantized.stored(f"{parameter}#scales", start, stop, workspace)
        scales_in_place(scales, workspace)
        return scales
    words = quantized.stored(f"{parameter}#codes", start, stop, workspace).view("<u4")
    words_in_place(words, scheme.bits)
    return words
