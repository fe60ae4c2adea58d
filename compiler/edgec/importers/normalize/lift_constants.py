"""Make parameters of the weights that are still constants.

What stays in the function are single numbers, and tables of integers or truth values: they are
part of what the model does, not something to store in the scheme's type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax

from edgec.importers.normalize.linear_form import Lifted
from edgec.importers.normalize.straight import Rewrite
from edgec.importers.raw import constant_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def lift_constants(
    mod: tvm.IRModule, names: Mapping[Any, str], taken: Iterable[str]
) -> tuple[tvm.IRModule, list[Lifted]]:
    """Append a parameter for each constant of floating-point numbers that isn't a single one.

    Args:
        mod: the module.
        names: of constants that still have the value they came with; others are numbered.
        taken: names of parameters that there are.
    """
    step = _Lift(mod, names, taken)
    return step.run(), list(step.lifted.values())


class _Lift(Rewrite):
    def __init__(self, mod: tvm.IRModule, names: Mapping[Any, str], taken: Iterable[str]) -> None:
        super().__init__(mod)
        self._names = names
        self._taken = set(taken)
        self._vars: dict[Any, relax.Var] = {}
        self.lifted: dict[Any, Lifted] = {}

    def constant(self, constant: Any) -> relax.Expr:
        value = constant.value
        if not str(value.dtype).startswith("float") or value.numpy().size <= 1:
            return constant
        key = constant_key(value)
        if key not in self._vars:
            name = self._names.get(key, "")
            if not name or name in self._taken:
                name = f"folded_{len(self.lifted)}"
            self._taken.add(name)
            self.lifted[key] = Lifted(name, "plain", value)
            ty = relax.TensorType([int(size) for size in value.shape], str(value.dtype))
            self._vars[key] = relax.Var(name, ty)
            self.parameters.append(self._vars[key])
        return self._vars[key]
