"""What can be said of weights from their headers or index alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgec.checkpoints import check_parameters, open_checkpoint
from edgec.checkpoints.index import INDEX_NAME, read_index
from edgec.checkpoints.problems import report
from edgec.checkpoints.quantized import open_folder, read_format
from edgec.checkpoints.wrapped_names import plain_name
from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from edgec.checkpoints import Checkpoint, ModelSource
    from edgec.models.parameters import Parameter


@dataclass(frozen=True)
class Weights:
    """What is known of a model's weights.

    Attributes:
        checked: ``"headers"``: names, shapes and dtypes; ``"index"``: names alone, of a hub model
            that isn't downloaded; ``"nothing"``: no list of tensors is at hand.
        tensors: how many there are.
        files: how many files hold them.
        nbytes: their stored size; None if only names are known.
        dtypes: tensors by stored type; empty if only names are known.
        problem: what doesn't fit the model; None if all does, as far as it was checked.
    """

    checked: Literal["headers", "index", "nothing"]
    tensors: int = 0
    files: int = 0
    nbytes: int | None = None
    dtypes: dict[str, int] = field(default_factory=dict)
    problem: CheckpointError | None = None


def look_at_weights(
    source: ModelSource, parameters: Sequence[Parameter], ignored: Sequence[str]
) -> Weights:
    """Compare a model's tensors with those that its family asks for.

    Args:
        source: of the model.
        parameters: that the family asks for.
        ignored: glob patterns of tensors that may be there though nothing uses them.
    """
    try:
        if source.kind == "folder":
            return _headers(open_folder(source.folder), parameters, ignored)
        if source.kind == "gguf":
            return _headers(open_checkpoint(source.where, Path()), parameters, ignored)
        if source.kind == "hub" and (source.folder / INDEX_NAME).is_file():
            return _index(source, parameters, ignored)
    except CheckpointError as error:
        return Weights("nothing", problem=error)
    return Weights("nothing")


def _headers(
    checkpoint: Checkpoint, parameters: Sequence[Parameter], ignored: Sequence[str]
) -> Weights:
    infos = [checkpoint.info(name) for name in checkpoint.names()]
    problem = None
    try:
        check_parameters(checkpoint, parameters, ignore=ignored)
    except CheckpointError as error:
        problem = error
    return Weights(
        "headers",
        tensors=len(infos),
        files=len({info.file for info in infos}),
        nbytes=sum(info.nbytes for info in infos),
        dtypes=dict(sorted(Counter(info.dtype for info in infos).items())),
        problem=problem,
    )


def _index(source: ModelSource, parameters: Sequence[Parameter], ignored: Sequence[str]) -> Weights:
    shards = read_index(source.folder / INDEX_NAME)
    expected = {item.name for parameter in parameters for item in parameter.sources}
    there, optional = _float_names(source, {plain_name(name) for name in shards})
    problems = [f"tensor {name} is missing" for name in sorted(expected - there)]
    problems += [
        f"tensor {name} is used by nothing in this model"
        for name in sorted(there - expected - optional)
        if not any(fnmatchcase(name, pattern) for pattern in ignored)
    ]
    problem = None
    try:
        report(
            problems,
            where=f"{source.where}: {INDEX_NAME}",
            summary="problems with its tensors",
            remedy="check that the weights and config.json belong to the same model",
        )
    except CheckpointError as error:
        problem = error
    return Weights("index", len(shards), len(set(shards.values())), problem=problem)


def _float_names(source: ModelSource, stored: Collection[str]) -> tuple[set[str], frozenset[str]]:
    """The float tensors that stored ones stand for, and those that may be there without a use."""
    form = read_format(source.config, source.where)
    if form is None:
        return set(stored), frozenset()
    layout = form.layout(stored)
    parts = {part for names in layout.restored.values() for part in names}
    return (set(stored) - parts - layout.unused) | layout.restored.keys(), layout.biases
