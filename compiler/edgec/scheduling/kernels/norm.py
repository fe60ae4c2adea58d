"""What the kernels of normalizations are made from, on every platform."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

NORM = "edgec.norm"
"""Attribute of a norm's kernel: what it computes, as :meth:`Norm.to_json` says it."""


@dataclass(frozen=True)
class Norm:
    """One kernel's parameters.

    Attributes:
        size: entries of a row.
        dtype: of the rows, the weight and the bias.
        epsilon: added to the mean of the squares.
        centered: whether it is a layer norm: the mean is taken off first, and a bias added at last.
        adds: whether two tensors are added first.
        keeps_sum: whether that sum is a result too.
        leading: dimensions before the normalized one, up to 3.
    """

    size: int
    dtype: str
    epsilon: float
    centered: bool = field(default=False, kw_only=True)
    adds: bool = False
    keeps_sum: bool = False
    leading: int = 2

    def to_json(self) -> str:
        """Text, the inverse of :meth:`from_json`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Norm:
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))

    @property
    def name(self) -> str:
        """Of the kernel."""
        kind = "layer_norm" if self.centered else "rms_norm"
        if self.adds:
            kind = f"add_{kind}" if self.keeps_sum else f"{kind}_of_sum"
        return f"{kind}_{self.size}"


class NormKernels(Protocol):
    """A platform's way to make kernels for norms."""

    def __call__(self, norm: Norm, outer: Sequence[int | None]) -> Any:
        """The PrimFunc ``(x[, addend], weight[, bias][, total], y)``.

        Weight and bias are ``(size,)``, all others ``(..., size)``.

        Args:
            norm: what it computes.
            outer: sizes of the leading dimensions, None for those that vary.
        """
