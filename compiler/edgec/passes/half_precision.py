"""Compute a function that was imported in float32 with float16, where that is safe.

Products take float16 and add in float32; norms, softmax and the like stay in float32. Inputs and
outputs keep their types.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax

if TYPE_CHECKING:
    from collections.abc import Sequence


@tvm.transform.module_pass(opt_level=0, name="HalfPrecision")
class HalfPrecision:
    """Mixed precision on ``main``.

    Args:
        weights: names of its parameters that are stored in float16.
    """

    def __init__(self, weights: Sequence[str]) -> None:
        self.weights = list(weights)

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite ``main``; the weights named become float16 arguments."""
        return relax.transform.ToMixedPrecision("float32", self.weights)(mod)
