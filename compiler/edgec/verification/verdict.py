"""Judge a report: does the artifact compute the right thing, and is it good enough?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgec.artifacts.library_metadata import EXACT_VERIFICATION
from edgec.errors import VerificationError
from edgec.verification.rounding import all_rounding
from edgec.verification.run import ARTIFACT, SHIPPED
from edgec.verification.steps import STEPS

if TYPE_CHECKING:
    from edgec.verification.run import Report

_WAYS = (*STEPS, "batch")
# Of two computations that round, on the same 16 positions, one was at most 2.1 times as far from one
# that doesn't as the other; on 256 positions 1.2 times.
_ROUNDED_KL_TIMES = 2.5
# Float16 activations alone: below 1e-6 in a trained model of six layers, 5e-5 in a random one of 16, in
# which rounding to 8 bits makes 2e-2.
_LEAST_KL = 1e-5
_REMEDY = "this is a defect of the compiler: report it with the recipe and the target"


class Quality(Protocol):
    """The limits of a recipe; None is no limit."""

    @property
    def max_kl(self) -> float | None:
        """Largest mean divergence in nats."""

    @property
    def min_top1(self) -> float | None:
        """Smallest share of positions with the same first token."""

    @property
    def max_perplexity_ratio(self) -> float | None:
        """Largest perplexity of the artifact over that of the original."""


def check_agreement(report: Report) -> None:
    """Demand that the artifact computes what its weights say, however it is called.

    An artifact that wasn't run passes: the caller has to say so.

    Raises:
        VerificationError: logits differ by more than rounding explains.
    """
    found = []
    if "compiler" in report:
        figures = report["compiler"]
        found += [("on the text", figures["max_logit_error"], SHIPPED, figures["tolerance"])]
    if "paths" in report:
        figures = report["paths"]
        other = SHIPPED if figures["against"] == "shipped" else "its own logits of a whole prefill"
        found += [(f"({way})", figures[way], other, figures["tolerance"]) for way in _WAYS]
    if (
        "images" in report
        and not (figures := report["images"])["max_error"] <= figures["tolerance"]
    ):
        raise VerificationError(
            f"its embeddings of an image differ from {SHIPPED} by {figures['max_error']:.6g} of the"
            f" largest, more than the {figures['tolerance']:.6g} that rounding explains",
            where=ARTIFACT,
            remedy=_REMEDY,
        )
    if "exact" in report and (figures := report["exact"])["differing"]:
        raise VerificationError(
            f"its logits of {figures['differing']} of {figures['positions']} positions have other bits in a"
            " pass over several tokens than one token at a time, though its metadata says"
            f" {EXACT_VERIFICATION}",
            where=ARTIFACT,
            remedy=_REMEDY,
        )
    broken = [
        f"its logits {what} differ from {other} by {error:.6g}, more than the {limit:.6g} that"
        " rounding explains"
        for what, error, other, limit in found
        if not error <= limit
    ]
    if broken:
        raise VerificationError(
            ", and ".join(broken),
            where=ARTIFACT,
            remedy=_REMEDY,
        )
    if "compiler" in report and (rounding := all_rounding(report)):
        # Of all logits together: a kernel that loses more than rounding shows here first.
        kl, rounded = report["compiler"]["kl"], rounding["kl"]
        if not kl <= _ROUNDED_KL_TIMES * rounded + _LEAST_KL:
            raise VerificationError(
                f"its predictions diverge from {SHIPPED} by {kl:.3g} nats, where the same"
                f" rounding of activations or of the KV cache in PyTorch makes {rounded:.3g}",
                where=ARTIFACT,
                remedy=_REMEDY,
            )


def gates(report: Report, quality: Quality) -> list[str]:
    """The limits of a recipe that the artifact breaks, one sentence each, with both figures.

    They apply to the section ``total``. Where the library can't be run, as on a CPU that lacks its
    features, or was run on a part of the text only, as on an emulated device, they apply to
    ``quantizer``, which is the same loss on all of the text without the compiler's rounding.
    With neither nothing was measured, and nothing is broken: the caller has to say so.
    """
    total = report.get("total", report.get("quantizer"))
    text = report.get("text", {})
    if text.get("artifact_tokens", 0) < text.get("tokens", 0):
        total = report.get("quantizer", total)
    if total is None:
        return []
    checks = (
        ("the mean KL divergence", total["kl"], "above", quality.max_kl, "max_kl"),
        ("the top-1 agreement", total["top1"], "below", quality.min_top1, "min_top1"),
        (
            "the perplexity ratio",
            total["perplexity_ratio"],
            "above",
            quality.max_perplexity_ratio,
            "max_perplexity_ratio",
        ),
    )
    return [
        f"{what} of {value:.6g} is {side} quality.{field}, {limit:.6g}"
        for what, value, side, limit, field in checks
        if limit is not None and (value > limit if side == "above" else value < limit)
    ]
