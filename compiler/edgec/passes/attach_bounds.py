"""Tell the memory planner how large symbolic dimensions can get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax

if TYPE_CHECKING:
    from collections.abc import Mapping


@tvm.transform.module_pass(opt_level=0, name="AttachBounds")
class AttachBounds:
    """Upper bounds by name of the symbolic variable, on every Relax function.

    With them the workspace of a function is planned as static storage of the largest size.
    """

    def __init__(self, bounds: Mapping[str, int]) -> None:
        self.bounds = dict(bounds)

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Set ``tir_var_upper_bound``."""
        for var, function in mod.functions_items():
            if isinstance(function, relax.Function):
                mod[var] = function.with_attr("tir_var_upper_bound", self.bounds)
        return mod
