"""Check each kernel alone, on the arguments that the model itself gives it.

While a library runs on its stand-in, every call of a kernel is repeated with the kernel's reference
on the same arguments, page tables and positions included. So a kernel that is wrong is named, at
its first wrong result, before the error has spread.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from edgec.errors import VerificationError
from edgec.verification.exercise import exercise
from edgec.verification.figures import rounded
from edgec.verification.sampling import check_sampling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edgec.runtime.engine import Engine

Array = npt.NDArray[np.generic]

# Of the largest magnitude that the reference computes, by the coarsest type among the tensors. A
# kernel and its reference add in float32 in different orders, thousands of terms at most; what comes
# in half precision has been rounded to 5e-4, and intermediate values (probabilities, dequantized
# weights) may be rounded so or not.
_TOLERANCE = {"float16": 4e-3, "float32": 1e-4}


# Host functions that compute shapes launch nothing.
_SHAPES = ("shape_func", "compute_symbolic_expr")


class Call(Protocol):
    """A call of a kernel, as ``edgec.standins.device.hosting.HostCall`` is."""

    @property
    def name(self) -> str:
        """Of the function."""

    @property
    def arguments(self) -> Sequence[Any]:
        """Numbers, and tensors with ``numpy()``."""


class References(Protocol):
    """What kernels should compute, as ``kernel_references.References`` is."""

    def __contains__(self, name: str) -> bool:
        """Whether there is a reference for a kernel."""

    def run(self, name: str, arguments: Sequence[Any]) -> list[Array]:
        """The arrays among the arguments, as the reference leaves them."""


@dataclass
class KernelErrors:
    """What was seen of one kernel.

    Attributes:
        calls: how often it ran.
        max_error: largest difference from the reference, relative to the reference's scale.
    """

    calls: int = 0
    max_error: float = 0.0


@dataclass
class KernelCheck:
    """An observer of a stand-in's calls.

    Attributes:
        references: of the library's kernels.
        seen: by kernel.
        unchecked: kernels that ran and have no reference, with their number of calls.
    """

    references: References
    seen: dict[str, KernelErrors] = field(default_factory=dict)
    unchecked: dict[str, int] = field(default_factory=dict)

    def __call__(self, call: Call, run: Callable[[], None]) -> None:
        """Run a kernel and compare it.

        Raises:
            VerificationError: its results are wrong.
        """
        if call.name.startswith(_SHAPES):
            run()
            return
        if call.name not in self.references:
            self.unchecked[call.name] = self.unchecked.get(call.name, 0) + 1
            run()
            return
        before = [_copy(argument) for argument in call.arguments]
        run()
        expected = self.references.run(call.name, before)
        tensors = [item for item in call.arguments if hasattr(item, "numpy")]
        errors = self.seen.setdefault(call.name, KernelErrors())
        errors.calls += 1
        limit = max(_TOLERANCE.get(str(item.dtype), 0.0) for item in expected)
        for place, (tensor, wanted) in enumerate(zip(tensors, expected, strict=True)):
            got = tensor.numpy()
            error = _error(got, wanted)
            if not error <= limit:
                shapes = ", ".join(f"{item.dtype}{list(item.shape)}" for item in expected)
                raise VerificationError(
                    f"the kernel {call.name} doesn't compute what it should: {_worst(got, wanted)}"
                    f" in its tensor {place} (call {errors.calls}, on {shapes})",
                    where=call.name,
                    remedy="this is a fault of the compiler or of its stand-in: report it with"
                    " the recipe and the target",
                )
            errors.max_error = max(errors.max_error, error)

    def to_json(self, kernels: Iterable[str]) -> dict[str, Any]:
        """What was seen, for the report.

        Args:
            kernels: all of the library, by name.

        Returns:
            ``checked``: calls and errors by kernel; ``unchecked``: calls of kernels without a
            reference; ``not_called``: names of the rest.
        """
        ran = self.seen.keys() | self.unchecked.keys()
        rest = {name for name in kernels if not name.startswith(_SHAPES)} - ran
        return {
            "checked": {
                name: {"calls": errors.calls, "max_error": rounded(errors.max_error)}
                for name, errors in sorted(self.seen.items())
            },
            "unchecked": dict(sorted(self.unchecked.items())),
            "not_called": sorted(rest),
        }


def check_kernels(
    open_engine: Callable[[KernelCheck], Engine],
    references: References,
    kernels: Iterable[str],
    tokens: Sequence[int],
    *,
    longest_image: int = 0,
) -> dict[str, Any]:
    """Run a library on a few tokens, each kernel beside its reference.

    Args:
        open_engine: loads it so that the observer it is given sees every call.
        references: of its kernels.
        kernels: names of all kernels of the library.
        tokens: to run it on, at least 2.
        longest_image: also on an image, if it has at most so many tokens.

    Returns:
        The section ``kernels`` of a report; see :meth:`KernelCheck.to_json`, and ``sampling``: the
        largest error of each function on logits against NumPy.

    Raises:
        VerificationError: a kernel is wrong; it is named.
    """
    check = KernelCheck(references)
    engine = open_engine(check)
    logits = exercise(engine, tokens, longest_image=longest_image)
    sampling = check_sampling(engine, logits)
    return {**check.to_json(kernels), "sampling": sampling}


def _copy(argument: Any) -> Any:
    return np.array(argument.numpy()) if hasattr(argument, "numpy") else argument


def _error(got: Array, wanted: Array) -> float:
    """The largest difference relative to the wanted scale; infinite where one isn't a number."""
    if not np.issubdtype(wanted.dtype, np.floating):
        return 0.0 if np.array_equal(got, wanted) else float("inf")
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    # Memory that neither wrote holds the same bits in both, which need not be numbers.
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    difference = np.abs(a - b)[~same]
    finite = np.abs(b[np.isfinite(b)])
    scale = float(finite.max()) if finite.size else 0.0
    if not np.isfinite(difference).all() or scale == 0.0:
        return float("inf")
    return float(difference.max()) / scale


def _worst(got: Array, wanted: Array) -> str:
    """The first of the largest differences in words."""
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        difference = np.abs(a - b)
    difference[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
    difference[np.isnan(difference)] = np.inf
    at = np.unravel_index(int(np.argmax(difference)), difference.shape)
    wrong = int(np.count_nonzero(difference > 0))
    place = ", ".join(str(int(index)) for index in at)
    return f"{a[at]:.6g} instead of {b[at]:.6g} at [{place}], {wrong} of {a.size} elements differ"
