"""Stream a whole checkpoint through a quantization method.

Every parameter is cut into pieces of rows; a piece is read, quantized and written in steps, in
memory that each thread allocates once. Rows don't depend on each other, so the bytes are the same
whatever the number of threads and the size of the steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edgec.errors import CheckpointError
from edgec.parallel import Workspace, run_all
from edgec.quantization.badrows import BadRowError
from edgec.quantization.methods import Quantize, load_method
from edgec.quantization.plain import cast
from edgec.quantization.store import StoredTensor, StoreIndex
from edgec.quantization.takeover import TAKEN_OVER, is_taken_over, take_over
from edgec.quantization.writer import QuantizedCheckpointWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from edgec.checkpoints.checkpoint import Checkpoint
    from edgec.models.parameters import Parameter, Source
    from edgec.progress import Progress
    from edgec.quantization.schemes import FloatType, TensorScheme

# In float32 weights. A piece is what a thread takes at a time; a step is what passes through the
# arithmetic at once. Smaller steps would stay in a second-level cache, but threads then spend more
# time waiting for the interpreter's lock than they gain.
PIECE = 1 << 20
STEP = 1 << 19


@dataclass(frozen=True)
class _Piece:
    """Rows ``[start, stop)`` of one source of a parameter."""

    parameter: Parameter
    source: Source
    start: int
    stop: int
    offset: int  # row of the parameter at which the source's row 0 stands


@dataclass(frozen=True)
class _Run:
    """What every piece needs."""

    checkpoint: Checkpoint
    schemes: Mapping[str, TensorScheme | None]
    dtype: FloatType
    quantize: Quantize
    writer: QuantizedCheckpointWriter
    progress: Progress


def quantize_checkpoint(
    checkpoint: Checkpoint,
    parameters: Sequence[Parameter],
    schemes: Mapping[str, TensorScheme | None],
    dtype: FloatType,
    method: str,
    out: Path,
    progress: Progress,
    *,
    threads: int,
) -> None:
    """Quantize a model into an existing folder; see :mod:`edgec.quantization.store`.

    A tensor that the checkpoint holds as codes which the scheme can store exactly is taken over as
    it is; see :mod:`edgec.quantization.takeover`.

    Reads each source once, by rows, and holds a few megabytes per thread, whatever the model's
    size. Progress counts the bytes of the source tensors.

    Args:
        checkpoint: the weights; its tensors fit ``parameters``.
        parameters: of the model, in the order in which they are stored.
        schemes: by parameter name, as from :func:`edgec.quantization.plan.tensor_schemes`.
        dtype: of the parameters without a scheme.
        method: a module of :mod:`edgec.quantization.methods`.
        out: where the two files go.
        progress: is told of bytes.
        threads: that work at once, at least 1.

    Raises:
        UsageError: there is no such method.
        CheckpointError: a weight is NaN or infinite, or overflows the type it is stored in.
        BuildError: the disk is full.
    """
    quantize = load_method(method)
    index = StoreIndex(
        dtype=dtype,
        tensors=tuple(
            _stored(p, schemes[p.name], dtype, _method(checkpoint, p, schemes[p.name], method))
            for p in parameters
        ),
    )
    sources = [source.name for parameter in parameters for source in parameter.sources]
    progress.start(sum(checkpoint.info(source).nbytes for source in sources), "bytes")
    with QuantizedCheckpointWriter(out, index) as writer:
        run = _Run(checkpoint, schemes, dtype, quantize, writer, progress)
        pieces = [piece for parameter in parameters for piece in _pieces(parameter)]
        run_all(partial(_process, run), pieces, threads=threads)
        writer.finish()


def _stored(
    parameter: Parameter, scheme: TensorScheme | None, dtype: FloatType, method: str
) -> StoredTensor:
    if scheme is None:
        return StoredTensor(name=parameter.name, shape=parameter.shape, dtype=dtype)
    return StoredTensor.model_validate(
        {
            "name": parameter.name,
            "shape": parameter.shape,
            "dtype": scheme.scale_dtype,
            "bits": scheme.bits,
            "group_size": scheme.group_size,
            "method": method,
            "zeros": scheme.zeros,
        }
    )


def _method(
    checkpoint: Checkpoint, parameter: Parameter, scheme: TensorScheme | None, method: str
) -> str:
    """What made a parameter's codes: the checkpoint, the recipe's method, or both."""
    taken = {is_taken_over(checkpoint, source.name, scheme) for source in parameter.sources}
    if taken == {True}:
        return TAKEN_OVER
    return f"{TAKEN_OVER}, {method}" if True in taken else method


def _pieces(parameter: Parameter) -> Iterator[_Piece]:
    assert sum(s.shape[0] for s in parameter.sources) == parameter.shape[0], parameter.name
    offset = 0
    for source in parameter.sources:
        assert source.shape[1:] == parameter.shape[1:], parameter.name
        rows = _rows(PIECE, source.shape)
        for start in range(0, source.shape[0], rows):
            yield _Piece(parameter, source, start, min(start + rows, source.shape[0]), offset)
        offset += source.shape[0]


def _rows(elements: int, shape: tuple[int, ...]) -> int:
    return max(1, elements // math.prod(shape[1:]))


def _process(run: _Run, piece: _Piece, workspace: Workspace) -> None:
    source = piece.source
    scheme = run.schemes[piece.parameter.name]
    step = _rows(STEP, source.shape)
    write = _take_over if is_taken_over(run.checkpoint, source.name, scheme) else _convert
    for start in range(piece.start, piece.stop, step):
        stop = min(start + step, piece.stop)
        try:
            write(run, piece, start, stop, workspace)
        except BadRowError as error:
            raise _located(run.checkpoint, source, start, error) from error
    info = run.checkpoint.info(source.name)
    run.progress.advance(info.nbytes // source.shape[0] * (piece.stop - piece.start))


def _take_over(run: _Run, piece: _Piece, start: int, stop: int, workspace: Workspace) -> None:
    """Rows of a source whose codes are those of the scheme already."""
    name, source = piece.parameter.name, piece.source
    scheme = run.schemes[name]
    assert scheme is not None, "plain weights have no codes"
    row = piece.offset + start
    for first, count in source.runs(start, stop):
        tensor = take_over(run.checkpoint, source.name, first, first + count, scheme)
        run.writer.write(name, row, tensor, workspace)
        row += count


def _convert(run: _Run, piece: _Piece, start: int, stop: int, workspace: Workspace) -> None:
    """Rows of a source that are floats, or are read as such."""
    name, source = piece.parameter.name, piece.source
    weight = workspace.array("weight", (stop - start, *source.shape[1:]), np.float32)
    done = 0
    for first, count in source.runs(start, stop):
        rows = weight[done : done + count]
        run.checkpoint.rows_into(source.name, first, first + count, rows)
        done += count
    if source.offset:
        weight += np.float32(source.offset)
    scheme = run.schemes[name]
    if scheme is None:
        run.writer.write_plain(name, piece.offset + start, cast(weight, run.dtype, workspace))
    else:
        tensor = run.quantize(weight, scheme, workspace)
        run.writer.write(name, piece.offset + start, tensor, workspace)


def _located(
    checkpoint: Checkpoint, source: Source, start: int, error: BadRowError
) -> CheckpointError:
    file = checkpoint.info(source.name).file
    row, _ = next(source.runs(start + error.row, start + error.row + 1))
    return CheckpointError(
        f"row {row} of {source.name} {error.what}",
        where=f"{checkpoint.where}/{file}" if file else checkpoint.where,
        remedy=error.remedy,
    )
