"""``edgec run`` on a generic artifact: arrays in files, or texts to vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import numpy as np

from edgec.cli.loading import title
from edgec.cli.output import print_json, say, stdout_table
from edgec.errors import BuildError, UsageError
from edgec.runtime.embedding import embed
from edgec.runtime.tensor_model import open_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgec.artifacts.artifact import Artifact

    Array = npt.NDArray[Any]

_SCHEMA = "edgec.run-tensors/v1"
_SHOWN = 4


def run_tensors(
    artifact: Artifact,
    text: str | None,
    *,
    inputs: Sequence[str],
    output: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Call a model once.

    Args:
        artifact: a generic one.
        text: to embed; None to call it on arrays.
        inputs: ``NAME=FILE.npy`` each.
        output: ``.npz`` file for the outputs, or ``.npy`` for a single one.
        threads: to compute with.
        as_json: print JSON.

    Raises:
        UsageError: inputs are missing, or don't fit the model.
    """
    if (text is None) == (not inputs):
        raise UsageError(
            "the model takes tensors" if artifact.interface is not None else "it takes no tensors",
            where=str(artifact.folder),
            remedy="give each input with --input NAME=FILE.npy, or of an embedding model a text",
        )
    arrays = dict(_read(item) for item in inputs)
    model = open_model(artifact, threads=threads)
    found = model.run(arrays) if text is None else {"embedding": embed(model, [text])[0]}
    if output is not None:
        _write(output, found)
    if as_json:
        listed = {
            name: {"shape": list(item.shape), "dtype": str(item.dtype), **_values(name, item)}
            for name, item in found.items()
        }
        print_json(
            _SCHEMA,
            {
                "artifact": str(artifact.folder),
                "name": artifact.manifest["name"],
                "target": artifact.manifest["target"],
                "outputs": listed,
                "load_s": model.load_seconds,
                "threads": model.threads,
            },
        )
        return
    say(click.style(title(artifact), bold=True))
    stdout_table(
        ("OUTPUT", "SHAPE", "TYPE", ">MIN", ">MEAN", ">MAX", "FIRST"),
        [
            (
                name,
                "x".join(map(str, item.shape)) or "scalar",
                str(item.dtype),
                *(f"{float(figure):.4g}" for figure in (item.min(), item.mean(), item.max())),
                " ".join(f"{float(number):.4g}" for number in item.ravel()[:_SHOWN]),
            )
            for name, item in found.items()
        ],
    )


def _values(name: str, array: Array) -> dict[str, Any]:
    """All numbers of a text's vector; of other outputs, which can be large, a file has them."""
    return {"values": [float(item) for item in array]} if name == "embedding" else {}


def _read(item: str) -> tuple[str, Array]:
    name, separator, file = item.partition("=")
    if not separator or not name or not file:
        raise UsageError(
            "this is no input", where=f"--input {item}", remedy="write --input NAME=FILE.npy"
        )
    try:
        array: Array = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the file can't be read: {error}", where=file, remedy="write it with numpy.save"
        ) from error
    if not isinstance(array, np.ndarray):
        raise UsageError(
            "the file holds several arrays", where=file, remedy="give a .npy file with one"
        )
    return name, array


def _write(path: Path, arrays: dict[str, Array]) -> None:
    if path.suffix not in (".npz", ".npy") or (path.suffix == ".npy" and len(arrays) != 1):
        raise UsageError(
            f"{len(arrays)} outputs can't be written to such a file",
            where=str(path),
            remedy="name a file that ends in .npz, or for a single output .npy",
        )
    try:
        if path.suffix == ".npy":
            np.save(path, next(iter(arrays.values())))
        else:
            # numpy's own function wants the names as keywords.
            save: Any = np.savez
            save(path, **arrays)
    except OSError as error:
        raise BuildError(
            f"can't be written: {error.strerror}", where=str(path), remedy="name another file"
        ) from error
