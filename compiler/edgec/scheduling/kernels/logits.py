"""What every platform offers for the functions that engines call on logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class LogitKernels:
    """Kernels for one vocabulary.

    Attributes:
        in_place: PrimFuncs that engines call by their ``global_symbol``.
        softmax: names and private PrimFuncs, run in order, that turn logits ``(n, 1, v)`` and
            temperatures ``(n,)`` into probabilities ``(n, 1, v)``. Each takes the logits, the
            temperatures and the results of those before it, and has one result as its last
            parameter, whose first dimension is ``n``.
    """

    in_place: tuple[Any, ...]
    softmax: tuple[tuple[str, Any], ...]
