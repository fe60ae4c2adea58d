"""Go through a function without branches, binding by binding, and write it anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Rewrite:
    """One walk over ``main``; a step derives from it and overrides what it changes.

    Attributes:
        builder: emits the new function.
        parameters: of the new function; a step may append to them.
    """

    def __init__(self, mod: tvm.IRModule) -> None:
        self._main = mod["main"]
        self.builder = relax.BlockBuilder()
        self.parameters: list[relax.Var] = []
        self._now: dict[relax.Var, relax.Expr] = {}
        self._values: dict[relax.Var, relax.Expr] = {}

    def call(self, call: relax.Call) -> relax.Expr:
        """A call whose arguments are rewritten already; what is to stand in its place."""
        return call

    def constant(self, constant: Any) -> relax.Expr:
        """A constant; what is to stand in its place."""
        return constant

    def parameter(self, var: relax.Var) -> tuple[relax.Var, relax.Expr]:
        """A parameter of the new function, and what stands for the old one inside."""
        return var, var

    def type(self, ty: Any) -> Any:
        """The type of a ``match_cast``."""
        return ty

    def result(self, expr: relax.Expr) -> relax.Expr:
        """What the new function returns."""
        return expr

    def emit(self, expr: relax.Expr) -> relax.Expr:
        """A variable bound to an expression of the new function; variables stay as they are."""
        if isinstance(expr, (relax.Var, tvm.ir.GenericConst)):
            return expr
        var = self.builder.emit(expr)
        self._values[var] = expr
        return var

    def value(self, expr: relax.Expr) -> relax.Expr:
        """What a variable of the new function is bound to; other expressions are themselves."""
        while isinstance(expr, relax.Var) and expr in self._values:
            expr = self._values[expr]
        return expr

    def run(self) -> tvm.IRModule:
        """The rewritten module."""
        main = self._main
        inside = []
        for var in main.params:
            new, stands = self.parameter(var)
            self.parameters.append(new)
            inside.append((var, stands))
        with self.builder.function("main"):
            with self.builder.dataflow():
                for var, stands in inside:
                    self._now[var] = self.emit(stands)
                for binding in _bindings(main):
                    self._now[binding.var] = self._binding(binding)
                result = self.builder.emit_output(self.result(self._expr(main.body.body)))
            self.builder.emit_func_output(result, params=self.parameters)
        return self.builder.get()

    def _binding(self, binding: Any) -> relax.Expr:
        if isinstance(binding, relax.MatchCast):
            value = self.emit(self._expr(binding.value))
            return self.builder.match_cast(value, self.type(binding.ty))
        return self.emit(self._expr(binding.value))

    def _expr(self, expr: Any) -> Any:
        if isinstance(expr, relax.Var):
            # Sizes are variables too, and stay.
            return self._now.get(expr, expr)
        if isinstance(expr, tvm.ir.GenericConst):
            return self.constant(expr)
        if isinstance(expr, relax.Tuple):
            return relax.Tuple([self._argument(field) for field in expr.fields])
        if isinstance(expr, relax.TupleGetItem):
            return self._item(self._expr(expr.tuple_value), expr.index)
        if isinstance(expr, relax.Call):
            arguments = [self._argument(argument) for argument in expr.args]
            return self.call(relax.Call(expr.op, arguments, expr.attrs, expr.ty_args))
        return expr

    def _item(self, source: Any, index: int) -> Any:
        known = self.value(source)
        whole = isinstance(known, relax.Tuple)
        return known.fields[index] if whole else relax.TupleGetItem(source, index)

    def _argument(self, expr: Any) -> Any:
        rewritten = self._expr(expr)
        return self.emit(rewritten) if isinstance(rewritten, relax.Call) else rewritten


def _bindings(function: relax.Function) -> Iterable[Any]:
    for block in function.body.blocks:
        yield from block.bindings


def operator(expr: Any) -> str:
    """The name of a call's operator, such as ``"relax.matmul"``; empty for other expressions."""
    return str(getattr(expr.op, "name", "")) if isinstance(expr, relax.Call) else ""


def each_call(mod: tvm.IRModule, rewrite: Callable[[Rewrite, relax.Call], Any]) -> tvm.IRModule:
    """Rewrite every call; a function that returns None leaves it."""

    class Calls(Rewrite):
        def call(self, call: relax.Call) -> relax.Expr:
            changed = rewrite(self, call)
            return call if changed is None else changed

    return Calls(mod).run()
