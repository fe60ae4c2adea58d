"""Make each tensor of the planned memory once in a function, and no views of views.

The memory plan gives the layers of a model the same places in turn, with the same shapes. Each of these
tensors would be made by a call of the virtual machine, though one made before says just the same. So do
repeated views, which in planned memory are such tensors too, and numbers that a function computes from
nothing.
"""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from edgec.passes.bindings import straight, without

_TENSOR = "relax.memory.alloc_tensor"
_VIEW = "relax.reshape"
_PLACED = {_TENSOR, _VIEW}


@tvm.transform.module_pass(opt_level=0, name="ShareTensors")
class ShareTensors:
    """After the memory plan; functions with branches stay as they are."""

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite the Relax functions."""
        share = _Share(mod)
        for var, function in mod.functions_items():
            if straight(function):
                share.builder_.update_func(var, _without_unread(share.rewrite(function)))
        return share.builder_.get()


@mutator
class _Share(PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        # What variables are bound to, by its hash.
        self._made: dict[int, list[tuple[relax.Expr, relax.Var]]] = {}
        # What tensors and views are bound to.
        self._values: dict[relax.Var, relax.Call] = {}

    def rewrite(self, function: relax.Function) -> relax.Function:
        """One function in which equal tensors are the same."""
        self._made, self._values = {}, {}
        return self.visit_expr(function)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        var = binding.var
        if isinstance(binding.value, relax.Var):
            self.set_var_remap(var, self.visit_expr(binding.value))
        elif not _repeatable(binding.value):
            super().visit_var_binding_(binding)
        else:
            value = self.visit_expr(binding.value)
            if _name(value) == _VIEW:
                value = self._view(*value.args)
            self.set_var_remap(var, self._once(var.name, value))

    def _view(self, viewed: relax.Expr, shape: relax.Expr) -> relax.Expr:
        """What a view comes to: of what is there already, or a planned tensor of another shape."""
        if _name(self._values.get(viewed)) == _VIEW:
            viewed = self._values[viewed].args[0]
        if _same(viewed.ty.shape, shape):
            return viewed
        source = self._values.get(viewed)
        if source is None:
            return relax.op.reshape(viewed, shape)
        storage, offset, _, *rest = source.args
        return relax.Call(source.op, [storage, offset, shape, *rest])

    def _once(self, name: str, value: relax.Expr) -> relax.Var:
        """A variable bound to a value, the first one if there are several."""
        if isinstance(value, relax.Var):
            return value
        value = self.builder_.normalize(value)
        equal = self._made.setdefault(tvm_ffi.structural_hash(value), [])
        for other, made in equal:
            if _same(other, value):
                return made
        made = self.builder_.emit(value, name)
        equal.append((value, made))
        if _name(value) in _PLACED:
            self._values[made] = value
        return made


def _repeatable(value: relax.Expr) -> bool:
    """Whether an expression that is evaluated again gives the same again."""
    if isinstance(value, relax.Call) and isinstance(value.op, relax.GlobalVar):
        return not value.args and isinstance(value.ty, tvm.ir.PrimType)
    return _name(value) in _PLACED


def _name(value: relax.Expr | None) -> str:
    """Of the operator; empty for what isn't a call of one."""
    return str(getattr(getattr(value, "op", None), "name", ""))


def _same(one: Any, other: Any) -> bool:
    return bool(tvm_ffi.structural_equal(one, other))


def _without_unread(function: relax.Function) -> relax.Function:
    """The function without tensors, views and tuples of them that nothing reads."""
    read = set(relax.analysis.free_vars(function.body.body))
    for block in function.body.blocks:
        for binding in block.bindings:
            read.update(relax.analysis.free_vars(binding.value))

    def unread(binding: relax.VarBinding) -> bool:
        made = isinstance(binding.value, relax.Tuple) or _name(binding.value) in _PLACED
        return made and binding.var not in read

    return without(function, unread)
