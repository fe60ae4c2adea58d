"""Leave tensors to the end of a function where letting go of them earlier frees nothing.

After its last use TVM takes every tensor out of the virtual machine's registers, by a call for each. That
frees memory where a tensor has its own. Tensors in planned memory have not, and weights belong to the
caller: they may as well stay until the function returns, when all registers are emptied at once. No more
memory is then in use than the plan says. The pass comes after ``KillAfterLastUse``.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, tirx

from edgec.passes.bindings import straight, without

_STORAGE = "relax.memory.alloc_storage"
_PARTS = {"relax.memory.alloc_tensor", "relax.reshape"}
_KILLS = {"relax.memory.kill_tensor", "relax.memory.kill_storage", "relax.vm.kill_object"}


@tvm.transform.module_pass(opt_level=0, name="KeepPlanned")
class KeepPlanned:
    """Functions with branches stay as they are."""

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite the Relax functions."""
        for var, function in mod.functions_items():
            if straight(function):
                mod.update_func(var, without(function, _Kept(function.params)))
        return mod


class _Kept:
    """Whether a binding only lets go of what may as well be kept.

    Args:
        parameters: of the function.
    """

    def __init__(self, parameters: list[relax.Var]) -> None:
        self._kept = set(parameters)

    def __call__(self, binding: relax.VarBinding) -> bool:
        value = binding.value
        if isinstance(value, relax.Var | relax.TupleGetItem):
            source = value if isinstance(value, relax.Var) else value.tuple_value
            if source in self._kept:
                self._kept.add(binding.var)
            return False
        name = getattr(getattr(value, "op", None), "name", "")
        if name in _KILLS:
            return value.args[0] in self._kept
        fixed = name == _STORAGE and all(isinstance(n, tirx.IntImm) for n in value.args[0].values)
        if fixed or (name in _PARTS and value.args[0] in self._kept):
            self._kept.add(binding.var)
        return False
