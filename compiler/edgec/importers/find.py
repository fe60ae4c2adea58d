"""Find the importer of a source, by what the source looks like."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgec.errors import ToolchainError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.importers.imported import ImportedModel, SourceModel, TensorType

FUNCTION = "torch:"
"""Begins a source that is a function in a Python file: ``torch:my_model.py:make``."""


def open_source(
    source: str,
    *,
    declared: Sequence[TensorType] = (),
    bounds: Mapping[str, int] | None = None,
    seed: int | None = None,
) -> SourceModel:
    """Open a model; loads the framework that it comes from, but not TVM.

    Args:
        source: a model folder in Hugging Face format, ``model.onnx``, ``exported.pt2`` or
            ``torch:FILE.py:FUNCTION``.
        declared: shapes of inputs by name, where the source can't say or another is wanted.
        bounds: the largest size of each dimension that varies.
        seed: random weights in place of the source's, where it is a config.

    Raises:
        UsageError: no importer takes such a source, or what is declared doesn't fit.
        CheckpointError: it is missing or damaged.
        ToolchainError: the framework isn't installed.
    """
    try:
        return _open(source, declared, dict(bounds or {}), seed)
    except ModuleNotFoundError as error:
        extra = "onnx" if source.endswith(".onnx") else "reference"
        raise ToolchainError(
            f"the package {error.name} is not installed",
            where=source,
            remedy=f"pip install 'edgec[{extra}]'",
        ) from error


def import_model(
    source: str,
    *,
    declared: Sequence[TensorType] = (),
    bounds: Mapping[str, int] | None = None,
    seed: int | None = None,
) -> ImportedModel:
    """Open a model and translate it; see :func:`open_source`.

    Raises:
        UnsupportedModelError: it has operators that can't be translated.
    """
    return open_source(source, declared=declared, bounds=bounds, seed=seed).imported()


def _open(
    source: str, declared: Sequence[TensorType], bounds: dict[str, int], seed: int | None
) -> SourceModel:
    # Each importer loads its framework.
    if source.startswith(FUNCTION):
        from edgec.importers.torch_sources import open_function  # noqa: PLC0415

        return open_function(source.removeprefix(FUNCTION), declared=declared, bounds=bounds)
    path = Path(source)
    if path.is_dir():
        from edgec.importers.hf_encoder import open_encoder  # noqa: PLC0415

        return open_encoder(path, declared=declared, bounds=bounds, seed=seed)
    if path.suffix == ".pt2":
        from edgec.importers.torch_sources import open_program  # noqa: PLC0415

        return open_program(path, declared=declared, bounds=bounds)
    if path.suffix == ".onnx":
        from edgec.importers.onnx_source import open_onnx  # noqa: PLC0415

        return open_onnx(path, declared=declared, bounds=bounds)
    raise UsageError(
        "no importer takes this source",
        where=source,
        remedy="give a model folder, model.onnx, exported.pt2 or torch:FILE.py:FUNCTION",
    )
