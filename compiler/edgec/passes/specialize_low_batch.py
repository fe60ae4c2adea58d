"""Give linear layers on GPUs a form of their own for few rows, chosen when they are called.

A batch of two to eight sequences in decode reads all weights for little arithmetic, as one sequence
does: a matrix-vector kernel with a few rows side by side reads them once. Tiles made for prefill
would idle most of their threads. The host code of the kernel looks at the number of rows.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.s_tir.dlight.gpu import LowBatchGEMV

from edgec.scheduling.kernels.linear import LINEAR

FORMS = ((2, 2), (8, 4))
"""Up to how many rows, how many of them side by side."""


@tvm.transform.module_pass(opt_level=0, name="SpecializeLowBatch")
class SpecializeLowBatch:
    """Args: rule: schedules the form for many rows."""

    def __init__(self, rule: Any) -> None:
        self.rule = rule

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite the linear layers whose number of rows is symbolic."""
        target = tvm.target.Target.current()
        for var, function in mod.functions_items():
            if not isinstance(function, tirx.PrimFunc) or not function.attrs.get(LINEAR):
                continue
            rows = function.params[0].shape[0]
            if function.attrs.get("tirx.is_scheduled"):
                continue
            if isinstance(rows, tirx.IntImm):
                continue
            mod.update_func(var, _choose(function, rows, self.rule, target))
        return mod


def _choose(function: tirx.PrimFunc, rows: tirx.Var, rule: Any, target: Any) -> tirx.PrimFunc:
    body = _body(function, rule, target)
    for most, together in reversed(FORMS):
        few = _body(function, LowBatchGEMV(together), target)
        # Every thread of a launch takes the same branch: it is taken before the launch.
        within = tirx.call_intrin("bool", "tirx.tvm_thread_invariant", rows <= most)
        body = tirx.IfThenElse(within, few, body)
    block = s_tir.SBlock([], [], [], "root", body)
    root = s_tir.SBlockRealize([], True, block)
    return function.with_body(root).with_attr("tirx.is_scheduled", True)


def _body(function: tirx.PrimFunc, rule: Any, target: Any) -> Any:
    """The function's loops under a rule, with variables of their own."""
    schedule = rule.apply(function, target, False)
    assert schedule is not None, f"no schedule fits {function.attrs.get('global_symbol')}"
    scheduled = schedule.mod["main"]
    return scheduled.body
