"""``golden.safetensors`` of a generic model: the inputs and outputs of one call."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.checkpoints.safetensors_file import SafetensorsFile
from edgec.checkpoints.safetensors_header import PREFIX
from edgec.checkpoints.safetensors_writer import write_safetensors
from edgec.errors import CheckpointError, VerificationError
from edgec.verification.figures import rounded
from edgec.verification.generic import relative_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Arrays = Mapping[str, npt.NDArray[Any]]

SCHEMA = "edgec.golden-tensors/v1"
_INPUT, _ARTIFACT, _REFERENCE = "input.", "artifact.", "reference."
_TYPES = {
    "F32": "<f4",
    "F16": "<f2",
    "I32": "<i4",
    "I64": "<i8",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_REMEDY = "restore the file or build the artifact again"


@dataclass(frozen=True)
class GoldenTensors:
    """One call.

    Attributes:
        inputs: by name, in order.
        artifact: what the artifact gave when it was built, by output.
        reference: what the source gives with the stored weights, in float32.
        tolerance: largest relative error of an output.
    """

    inputs: Arrays
    artifact: Arrays
    reference: Arrays
    tolerance: float


def write_golden_tensors(path: Path, golden: GoldenTensors) -> None:
    """Write the file; equal content gives equal bytes."""
    arrays = {
        **{f"{_INPUT}{name}": array for name, array in golden.inputs.items()},
        **{f"{_ARTIFACT}{name}": array for name, array in golden.artifact.items()},
        **{f"{_REFERENCE}{name}": array for name, array in golden.reference.items()},
    }
    types = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    metadata = {"schema": SCHEMA, "tolerance": repr(golden.tolerance)}
    write_safetensors(path, types, arrays.items(), metadata)


def read_golden_tensors(path: Path) -> GoldenTensors:
    """Read the file.

    Raises:
        VerificationError: it is missing, damaged or of another version.
    """
    try:
        file = SafetensorsFile(path)
        parts: dict[str, dict[str, npt.NDArray[Any]]] = {}
        for name in file.names():
            info = file.info(name)
            raw = np.empty(info.nbytes, np.uint8)
            file.bytes_into(name, 0, raw)
            kind, _, own = name.partition(".")
            array = raw.view(_TYPES[info.dtype]).reshape(info.shape)
            parts.setdefault(f"{kind}.", {})[own] = array
        with path.open("rb") as opened:
            length = int.from_bytes(opened.read(PREFIX), "little")
            metadata = json.loads(opened.read(length)).get("__metadata__", {})
        golden = GoldenTensors(
            parts[_INPUT],
            parts[_ARTIFACT],
            parts.get(_REFERENCE, {}),
            float(metadata["tolerance"]),
        )
    except CheckpointError as error:
        raise VerificationError(error.what, where=str(path), remedy=_REMEDY) from error
    except (OSError, ValueError, KeyError) as error:
        raise VerificationError(
            f"can't be read: {error}", where=str(path), remedy=_REMEDY
        ) from error
    if metadata.get("schema") != SCHEMA:
        raise VerificationError(
            f"its schema is {metadata.get('schema')!r}, not {SCHEMA}",
            where=str(path),
            remedy=_REMEDY,
        )
    return golden


def check_golden_tensors(
    run: Callable[[Sequence[npt.NDArray[Any]]], Sequence[npt.NDArray[Any]]], golden: GoldenTensors
) -> dict[str, Any]:
    """Run the call again.

    Args:
        run: the artifact.
        golden: of the artifact.

    Returns:
        The relative error of each output against both records, and the tolerance.

    Raises:
        VerificationError: an error is above the tolerance.
    """
    outputs = run(list(golden.inputs.values()))
    figures: dict[str, Any] = {"tolerance": golden.tolerance}
    for kind, recorded in (("artifact", golden.artifact), ("reference", golden.reference)):
        errors = {
            name: relative_error(got, recorded[name], name)
            for got, name in zip(outputs, golden.artifact, strict=True)
            if name in recorded
        }
        figures[kind] = {name: rounded(error) for name, error in errors.items()}
        worst = max(errors.values(), default=0.0)
        if not worst <= golden.tolerance:
            raise VerificationError(
                f"its outputs differ from the golden ones ({kind}) by {worst:.6g} of their"
                f" scale, more than {golden.tolerance:g}",
                where="the artifact",
                remedy="build it again; if that doesn't help, report it with the recipe and the"
                " target",
            )
    return figures
