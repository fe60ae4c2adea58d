"""Compare an artifact with its references on a text, as one report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from edgec.errors import UsageError
from edgec.verification.exact import exact_figures, promises_exactness
from edgec.verification.figures import rounded
from edgec.verification.images import image_figures, image_tokens
from edgec.verification.paths import path_errors
from edgec.verification.rounding import ACTIVATIONS, ALL, CACHE, all_rounding
from edgec.verification.statistics import Comparison
from edgec.verification.steps import STEPS, all_logits, calls
from edgec.verification.text import text_digest
from edgec.verification.tolerance import tolerance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.models.window import SlidingWindow
    from edgec.progress import Progress
    from edgec.quantization.schemes import FloatType
    from edgec.verification.interfaces import Engine, Logits, Model
    from edgec.verification.text import Document


@dataclass(frozen=True)
class Extent:
    """How much of a text the artifact is run on: emulated devices are slow.

    Attributes:
        tokens: at most so many, from the first on; the last window may be cut short.
        path_tokens: of each window on which the ways to call the artifact are compared.
    """

    tokens: int | None = None
    path_tokens: int | None = None

    def cut(self, windows: Sequence[list[int]]) -> list[list[int]]:
        """What of the windows the artifact is run on, at least two tokens."""
        left = sum(map(len, windows)) if self.tokens is None else max(2, self.tokens)
        parts = []
        for ids in windows:
            if left < 2:
                break
            parts.append(ids[:left])
            left -= len(parts[-1])
        return parts


WHOLE = Extent()

Report = dict[str, Any]
"""Plain data for ``report.json``; see :func:`verify`."""

# Decoding one by one is slow, and a path that is wrong is wrong on every text.
_PATH_WINDOWS = 3
# How messages call the three models.
ARTIFACT = "the artifact"
SHIPPED = "the reference with the shipped weights"
ROUNDED = {
    ACTIVATIONS: "the same with rounded activations",
    CACHE: "the same with a rounded KV cache",
    ALL: "the same with rounded activations and a rounded KV cache",
}
ORIGINAL = "the original model"


def verify(
    engine: Engine | None,
    original: Model | None,
    shipped: Model | None,
    windows: Sequence[list[int]],
    *,
    documents: Sequence[Document],
    dtype: FloatType,
    progress: Progress,
    extent: Extent = WHOLE,
    window: SlidingWindow | None = None,
    rounds: bool = False,
    roundings: Mapping[str, Model] = MappingProxyType({}),
) -> Report:
    """Measure; ``verdict`` judges.

    Works window by window: the logits of one window are in memory, not those of the text. Nothing
    is computed twice when ``original`` and ``shipped`` are the same object, as they may be when
    nothing was quantized.

    Args:
        engine: the artifact, with no live sequences; None if it can't be run here.
        original: the original weights in float32; None if it isn't wanted.
        shipped: the shipped weights in float32; None if it isn't wanted.
        windows: of the text.
        documents: the text, for the report.
        dtype: of the artifact's activations.
        progress: is told of tokens.
        extent: how much of the text the artifact is run on; the references see all of it.
        window: that slides over the context of the artifact and of both models.
        rounds: whether the artifact's kernels round activations to 8 bits, or keys and values to
            what its KV cache holds.
        roundings: ``shipped`` with what they round, see :attr:`Reference.roundings`; the last rounds all of
            it. Empty if they aren't there.

    Returns:
        ``text`` (``documents``, ``windows``, ``tokens``, ``digest``, and ``artifact_tokens``, those
        that the artifact was run on); the figures of
        :meth:`Comparison.summary` under ``compiler`` (artifact against shipped weights, with the
        ``tolerance``), the names of ``roundings`` (each against shipped weights, on what the
        artifact was run on), ``quantizer`` (shipped weights against original) and ``total`` (artifact
        against original), as far as both models are there; and, if the artifact is, ``paths``:
        the figures of :func:`path_errors` on the first windows, with the ``tolerance``,
        ``against`` ``shipped`` or, without that reference, the artifact's own ``all_logits``;
        ``exact``, the figures of :func:`exact_figures`, where the library promises that; and
        ``images``, the figures of :func:`image_figures` against ``shipped``, if the model takes any.

    Raises:
        UsageError: a window is longer than the artifact's context.
        VerificationError: the shapes of logits differ or they aren't finite numbers.
    """
    if engine is not None and window is None:
        _check_capacity(engine, windows)
    tested = (
        [] if engine is None else [ids[: extent.path_tokens] for ids in windows[:_PATH_WINDOWS]]
    )
    run_on = [] if engine is None else extent.cut(windows)
    tokens = sum(map(len, windows))
    referenced = original is not None or shipped is not None
    # Each way to call it and a batch have expected logits of their own where a window slides.
    expected = sum(map(len, tested)) * (1 if window is None else len(STEPS) + 1)
    progress.start(expected + (tokens if referenced else 0), "tokens")
    report: Report = {
        "text": {
            "documents": [document.name for document in documents],
            "windows": len(windows),
            "tokens": tokens,
            "artifact_tokens": sum(map(len, run_on)),
            "digest": text_digest(documents),
        }
    }
    if referenced:
        progress.note("comparing with the reference")
        report.update(_compare(engine, original, shipped, roundings, windows, run_on, progress))
    if engine is not None:
        progress.note("comparing prefill, decode and batches")
        report["paths"] = _compare_paths(engine, shipped, tested, progress, window)
        if promises_exactness(engine):
            report["exact"] = exact_figures(engine, tested[0])
        if shipped is not None and 0 < image_tokens(engine) <= (extent.tokens or math.inf):
            progress.note("comparing an image")
            report["images"] = image_figures(
                cast("Any", engine),
                cast("Any", shipped),
                dtype,
                cast("Any", roundings[list(roundings)[-1]] if roundings else None),
            )
    rounding = rounding_error(report, rounds=rounds)
    for section in {"compiler", "paths"} & report.keys():
        figures = report[section]
        figures["tolerance"] = rounded(tolerance(dtype, figures["logit_scale"], rounding))
    return report


def rounding_error(report: Report, *, rounds: bool) -> float | None:
    """What :func:`~edgec.verification.tolerance.tolerance` takes for ``rounding``."""
    if not rounds:
        return 0.0
    measured: float | None = all_rounding(report).get("max_logit_error")
    return measured


def _check_capacity(engine: Engine, windows: Sequence[list[int]]) -> None:
    longest = max(map(len, windows))
    if longest > engine.capacity.tokens:
        raise UsageError(
            f"windows have {longest} tokens, the artifact's context {engine.capacity.tokens}",
            where="quality.window",
            remedy=f"write at most {engine.capacity.tokens}",
        )


def _compare_paths(
    engine: Engine,
    shipped: Model | None,
    windows: Sequence[list[int]],
    progress: Progress,
    window: SlidingWindow | None,
) -> Report:
    """The section that compares the ways to call one artifact."""

    def expected(ids: list[int], parts: Sequence[int]) -> Logits:
        progress.advance(len(ids))
        if shipped is None:
            return all_logits(engine, ids, parts)
        return shipped.logits(ids, parts)

    errors = path_errors(engine, windows, expected, window)
    return {**errors, "against": "all_logits" if shipped is None else "shipped"}


def _compare(
    engine: Engine | None,
    original: Model | None,
    shipped: Model | None,
    roundings: Mapping[str, Model],
    windows: Sequence[list[int]],
    run_on: Sequence[list[int]],
    progress: Progress,
) -> Report:
    """The sections that compare two models, for each pair of which both are there."""
    pairs = {
        "compiler": (SHIPPED, ARTIFACT),
        **{name: (SHIPPED, ROUNDED[name]) for name in roundings},
        "quantizer": (ORIGINAL, SHIPPED),
        "total": (ORIGINAL, ARTIFACT),
    }
    models = {ORIGINAL: original, SHIPPED: shipped, ARTIFACT: engine}
    models |= {ROUNDED[name]: model for name, model in roundings.items()}
    there = {name for name, model in models.items() if model is not None}
    comparisons = {
        section: Comparison(*pair) for section, pair in pairs.items() if there.issuperset(pair)
    }
    for number, ids in enumerate(windows):
        logits: dict[str, Logits] = {}
        parts = (
            [] if engine is None else calls("all_logits", len(ids), engine.capacity.prefill_chunk)
        )
        if engine is not None and number < len(run_on):
            logits[ARTIFACT] = all_logits(engine, run_on[number])
        if shipped is not None:
            logits[SHIPPED] = shipped.logits(ids, parts)
        if engine is None or ARTIFACT in logits:
            # On what the artifact is run on: the largest of as many differences.
            count = len(logits.get(ARTIFACT, ids))
            for name, model in roundings.items():
                logits[ROUNDED[name]] = model.logits(ids, parts)[:count]
        if original is not None:
            same = original is shipped
            logits[ORIGINAL] = logits[SHIPPED] if same else original.logits(ids, parts)
        for section, comparison in comparisons.items():
            first, second = pairs[section]
            if not logits.keys() >= {first, second}:
                continue
            count = min(len(logits[first]), len(logits[second]))
            comparison.update(logits[first][:count], logits[second][:count], ids[:count])
        progress.advance(len(ids))
    return {section: comparison.summary() for section, comparison in comparisons.items()}
