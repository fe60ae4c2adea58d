"""Tell LLVM that the buffers of a kernel don't overlap, for every kernel of the module.

They never do: arguments are separate tensors, and a kernel that works in place has one argument for what
it reads and writes. TVM 0.27 forgets the mark of *all* functions of a module when one of the later ones
lacks it, and without it accumulators stay in memory: our matmuls then run at less than half their speed.
Functions made while lowering to the virtual machine lack it, so this pass comes last.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx

_ATTRIBUTE = "tirx.noalias"


@tvm.transform.module_pass(opt_level=0, name="AssumeNoAlias")
class AssumeNoAlias:
    """Set ``tirx.noalias`` on every PrimFunc."""

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Mark the functions that aren't marked yet."""
        for var, function in mod.functions_items():
            if isinstance(function, tirx.PrimFunc) and not function.attrs.get(_ATTRIBUTE):
                mod.update_func(var, function.with_attr(_ATTRIBUTE, True))
        return mod
