"""Compare a generic artifact with its source, output by output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgec.errors import VerificationError
from edgec.verification.figures import rounded
from edgec.verification.tolerance import ROUNDED_TIMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from edgec.artifacts.interface import ModelInterface
    from edgec.progress import Progress
    from edgec.quantization.schemes import FloatType

    Array = npt.NDArray[Any]
    Run = Callable[[Sequence[Array]], Sequence[Array]]

Report = dict[str, Any]

LIMITS: dict[str, float] = {"float32": 1e-4, "float16": 5e-2}
"""How far two correct ways to compute an output may lie apart, relative to its largest magnitude.

Float32: sums of thousands of products in another order, through some hundred layers in series, are
off by some 1e-5; approximations of exp and erf by as much. Float16 rounds every activation to 5e-4,
as ``tolerance`` explains for decoders. A wrong kernel is off by a good part of the scale.
"""


@dataclass(frozen=True)
class Models:
    """The same model three times.

    Attributes:
        artifact: the compiled library on its stand-in; None if it can't be run here.
        original: the source in its framework, in float32.
        shipped: the source with the stored weights, in float32; the same function as ``original``
            where storing loses nothing.
        rounded: ``shipped`` with activations rounded to 8 bits as the artifact's kernels do it; None
            where they don't.
    """

    artifact: Run | None
    original: Run
    shipped: Run
    rounded: Run | None = None


@dataclass(frozen=True)
class Outputs:
    """What the models gave for one call."""

    inputs: Mapping[str, Array]
    artifact: Sequence[Array] | None
    original: Sequence[Array]
    shipped: Sequence[Array]
    rounded: Sequence[Array] | None = None


def run_samples(
    models: Models, samples: Sequence[Mapping[str, Array]], progress: Progress
) -> list[Outputs]:
    """Run every model on every sample."""
    progress.start(len(samples), "calls")
    found = []
    for sample in samples:
        arguments = list(sample.values())
        artifact = None if models.artifact is None else models.artifact(arguments)
        original = models.original(arguments)
        same = models.shipped is models.original
        shipped = original if same else models.shipped(arguments)
        rounding = None if models.rounded is None else models.rounded(arguments)
        found.append(Outputs(sample, artifact, original, shipped, rounding))
        progress.advance(1)
    return found


def compare(interface: ModelInterface, results: Sequence[Outputs], dtype: FloatType) -> Report:
    """The figures of a report, section ``outputs``: errors relative to each output's scale.

    ``quantizer`` is the stored weights in float32 against the original, ``compiler`` the artifact
    against the stored weights, ``total`` the artifact against the original, and ``activations`` what
    rounding activations to 8 bits makes in the framework, where the artifact's kernels do that. The
    ``tolerance`` grows with it: see :func:`edgec.verification.tolerance.tolerance`.

    Raises:
        VerificationError: an output has another shape than the source's, or isn't finite.
    """
    outputs: dict[str, dict[str, float]] = {}
    for index, item in enumerate(interface.outputs):
        errors: dict[str, float] = {}
        for result in results:
            pairs = [("quantizer", result.shipped, result.original)]
            if result.artifact is not None:
                pairs.append(("compiler", result.artifact, result.shipped))
                pairs.append(("total", result.artifact, result.original))
            if result.rounded is not None and result.shipped[index].dtype.kind == "f":
                pairs.append(("activations", result.rounded, result.shipped))
            for name, got, wanted in pairs:
                error = relative_error(got[index], wanted[index], item.name)
                errors[name] = rounded(max(error, errors.get(name, 0.0)))
        outputs[item.name] = errors
    sizes = [
        {name: list(array.shape) for name, array in result.inputs.items()} for result in results
    ]
    rounding = max(errors.get("activations", 0.0) for errors in outputs.values())
    limit = LIMITS[dtype] + ROUNDED_TIMES * rounding
    return {"outputs": outputs, "calls": sizes, "tolerance": rounded(limit)}


def check_outputs(report: Report) -> None:
    """Demand that the artifact computes what its weights say.

    Raises:
        VerificationError: an output differs by more than rounding explains.
    """
    limit = report["tolerance"]
    broken = [
        f"{name} differs by {errors['compiler']:.6g} of its scale"
        for name, errors in report["outputs"].items()
        if not errors.get("compiler", 0.0) <= limit
    ]
    if broken:
        raise VerificationError(
            f"{', '.join(broken)} from the source with the same weights, more than the {limit:g} that"
            " rounding explains",
            where="the artifact",
            remedy="this is a defect of the compiler: report it with the recipe and the target",
        )


def broken_limit(report: Report, max_error: float | None) -> str | None:
    """A sentence if an output breaks the recipe's limit; the artifact was perhaps not run."""
    if max_error is None or "outputs" not in report:
        return None
    figures = {
        name: errors.get("total", errors["quantizer"]) for name, errors in report["outputs"].items()
    }
    name = max(figures, key=lambda key: figures[key])
    if figures[name] <= max_error:
        return None
    return (
        f"{name} is off by {figures[name]:.4g} of its scale, above the limit of"
        f" {max_error:g} (max_error)"
    )


def relative_error(got: Array, wanted: Array, name: str) -> float:
    """``max |got - wanted| / max |wanted|``; of integers 0 or infinite.

    Raises:
        VerificationError: the shapes differ, or ``got`` isn't finite where ``wanted`` is.
    """
    if got.shape != wanted.shape:
        raise VerificationError(
            f"the output {name} has the shape {list(got.shape)} in place of {list(wanted.shape)}",
            where="the artifact",
            remedy="this is a defect of the compiler: report it with the recipe and the target",
        )
    if wanted.dtype.kind != "f":
        return 0.0 if np.array_equal(got, wanted) else float("inf")
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    if not np.isfinite(a[~same]).all():
        raise VerificationError(
            f"the output {name} has numbers that are not finite",
            where="the artifact",
            remedy="choose a scheme with float32 activations if the model overflows float16",
        )
    scale = float(np.abs(b[np.isfinite(b)]).max(initial=0.0))
    return float(np.abs(a - b)[~same].max()) / (scale or 1.0)
