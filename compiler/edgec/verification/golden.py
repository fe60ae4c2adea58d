"""A short run with known results, kept in the artifact: a check that needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgec.errors import VerificationError
from edgec.verification.figures import largest_difference, require_finite, rounded
from edgec.verification.steps import STEPS, all_logits, calls
from edgec.verification.tolerance import tolerance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.models.window import SlidingWindow
    from edgec.quantization.schemes import FloatType
    from edgec.verification.interfaces import Engine, Logits, Model

# Logits of both kinds together; tokens and the header are far below the rest of 4 MiB.
_LOGIT_BYTES = (4 << 20) - (256 << 10)
_MOST_TOKENS = 4096
# Ways in which tokens come as in ``all_logits``.
_WHOLE = ("all_logits", "prefill")


@dataclass(frozen=True)
class Golden:
    """Inputs and outputs of an artifact.

    Attributes:
        tokens: int32 ``(n,)``, one sequence.
        positions: int32 ``(k,)``, ascending: those of which logits are kept.
        artifact: float32 ``(k, vocab)``, the artifact's logits when it was built.
        reference: float32 ``(k, vocab)``, those of the shipped weights in float32 by transformers;
            None if it was not run.
        tolerance: largest ``|difference of logits|`` allowed from either.
    """

    tokens: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    artifact: Logits
    reference: Logits | None
    tolerance: float


def make_golden(
    engine: Engine,
    tokens: Sequence[int],
    dtype: FloatType,
    reference: Model | None = None,
    window: SlidingWindow | None = None,
    rounding: float | None = 0.0,
) -> Golden:
    """Run the artifact, and the reference if there is one, on a sequence.

    As many positions are kept as fit in 4 MiB, spread evenly from the first to the last, so that
    long contexts are checked also where the vocabulary is large.

    Args:
        engine: the artifact.
        tokens: at least 2; those beyond the context or 4096 are left out.
        dtype: of the activations.
        reference: with the shipped weights.
        window: that slides over the context.
        rounding: see :func:`edgec.verification.tolerance.tolerance`.

    Raises:
        VerificationError: artifact and reference differ by more than the tolerance, or the logits
            aren't finite numbers.
    """
    most = _MOST_TOKENS if window else min(_MOST_TOKENS, engine.capacity.tokens)
    ids = list(tokens[:most])
    logits = all_logits(engine, ids)
    kinds = 1 if reference is None else 2
    rows = max(1, _LOGIT_BYTES // (kinds * logits.shape[1] * logits.itemsize))
    positions = _spread(len(ids), rows)
    kept = logits[positions]
    require_finite(kept, "the artifact")
    parts = calls("all_logits", len(ids), engine.capacity.prefill_chunk)
    expected = None if reference is None else reference.logits(ids, parts)[positions]
    scale = float(np.max(np.abs(kept if expected is None else expected)))
    limit = rounded(tolerance(dtype, scale, rounding))
    golden = Golden(np.asarray(ids, np.int32), positions, kept, expected, limit)
    if expected is not None:
        _require(
            largest_difference(kept, expected, "the artifact"), golden, "reference", "all_logits"
        )
    return golden


def check_golden(
    engine: Engine, golden: Golden, window: SlidingWindow | None = None
) -> dict[str, Any]:
    """Run the artifact again, in every way that takes one sequence, and compare.

    Args:
        engine: the artifact, with the prefill chunk that the outputs were made with.
        golden: outputs.
        window: that slides over the context: once it has, logits depend on how many tokens come at
            a time, and only ways that are alike in that are compared.

    Returns:
        ``positions`` (how many), ``tolerance``, and ``max |difference of logits|`` by way
        (``all_logits``, ``prefill``, ``chunked_prefill``, ``decode``) under ``artifact`` and, if
        it is there, ``reference``.

    Raises:
        VerificationError: a difference is above the tolerance, logits aren't finite numbers, or
            the golden file belongs to another model.
    """
    if window is None and len(golden.tokens) > engine.capacity.tokens:
        raise VerificationError(
            f"has {len(golden.tokens)} tokens, more than the context of {engine.capacity.tokens}",
            where="golden outputs",
            remedy="use the golden file that was built with this library",
        )
    kept = {"artifact": golden.artifact}
    if golden.reference is not None:
        kept["reference"] = golden.reference
    row_of = {int(position): row for row, position in enumerate(golden.positions)}
    errors = {kind: dict.fromkeys(STEPS, 0.0) for kind in kept}
    ids = golden.tokens.tolist()
    for way, step in STEPS.items():

        def compare(position: int, got: Logits, way: str = way) -> None:
            row = row_of.get(position)
            if row is None or (window and position > window.size and way not in _WHOLE):
                return
            for kind, table in kept.items():
                error = largest_difference(got, table[row], f"the artifact ({way})")
                errors[kind][way] = max(errors[kind][way], error)

        step(engine, ids, compare)
    for kind, by_way in errors.items():
        for way, error in by_way.items():
            _require(error, golden, kind, way)
    return {
        "positions": len(golden.positions),
        "tolerance": golden.tolerance,
        **{
            kind: {way: rounded(error) for way, error in by_way.items()}
            for kind, by_way in errors.items()
        },
    }


def _spread(count: int, wanted: int) -> npt.NDArray[np.int32]:
    """At most ``wanted`` of ``count`` positions, always with the last one."""
    if wanted >= count:
        return np.arange(count, dtype=np.int32)
    steps = np.arange(1, wanted + 1, dtype=np.int64)
    return (steps * count // wanted - 1).astype(np.int32)


def _require(error: float, golden: Golden, kind: str, way: str) -> None:
    if error <= golden.tolerance:
        return
    whose = {"artifact": "its own golden outputs", "reference": "the float32 reference"}[kind]
    raise VerificationError(
        f"the artifact's logits ({way}) differ from {whose} by {error:.6g}, more than the"
        f" {golden.tolerance:.6g} that rounding explains",
        remedy="build the artifact again on this machine and compare",
    )
