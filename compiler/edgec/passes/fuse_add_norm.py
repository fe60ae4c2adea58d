"""Give RMS and layer norms a kernel of their own, with the residual addition before it.

``s = a + b; y = norm(s, weight)`` becomes one kernel with the results ``s`` and ``y``, or only
``y`` where nothing else reads the sum. The addition moves down to the norm, so both stay apart if
something between them reads the sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tvm
import tvm_ffi
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from edgec.ir.params import known_sizes
from edgec.scheduling.kernels.norm import NORM, Norm

if TYPE_CHECKING:
    from edgec.scheduling.kernels.norm import NormKernels


@tvm.transform.module_pass(opt_level=0, name="FuseAddNorm")
class FuseAddNorm:
    """Args: kernels: makes them."""

    def __init__(self, kernels: NormKernels) -> None:
        self.kernels = kernels

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite the Relax functions and add the kernels they call."""
        fuse = _Fuse(mod, self.kernels)
        for var, function in mod.functions_items():
            if isinstance(function, relax.Function):
                fuse.builder_.update_func(var, fuse.rewrite(function))
        return fuse.builder_.get()


@dataclass(frozen=True)
class _Sum:
    """An addition that moves into the norm that reads it first.

    Attributes:
        var: bound to the sum.
        terms: the two tensors.
        kept: whether anything else reads the sum.
    """

    var: relax.Var
    terms: tuple[relax.Expr, relax.Expr]
    kept: bool


def _sums(function: relax.Function) -> dict[relax.Var, _Sum]:
    """The variable of each norm that takes in an addition."""
    found: dict[relax.Var, _Sum] = {}
    for block in function.body.blocks:
        if not isinstance(block, relax.DataflowBlock):
            continue
        values = {binding.var: binding.value for binding in block.bindings}
        order = {var: place for place, var in enumerate(values)}
        readers = relax.analysis.udchain(block)
        for var, value in values.items():
            if not _is_norm(value) or not _is_residual(values.get(value.args[0])):
                continue
            total = value.args[0]
            first = min(readers[total], key=lambda reader: order[reader])
            if first.same_as(var):
                kept = len(readers[total]) > 1 or not isinstance(total, relax.DataflowVar)
                found[var] = _Sum(total, tuple(values[total].args), kept)
    return found


def _is_norm(value: Any) -> bool:
    """Whether a value is a norm over the last of two to four axes, in one dtype."""
    if not isinstance(value, relax.Call):
        return False
    if value.op == tvm.ir.Op.get("relax.nn.layer_norm"):
        if not (value.attrs.center and value.attrs.scale):
            return False
    elif value.op != tvm.ir.Op.get("relax.nn.rms_norm"):
        return False
    x, *learned = (argument.ty for argument in value.args)
    axes = [int(axis) % x.ndim for axis in value.attrs.axes]
    plain = axes == [x.ndim - 1] and x.ndim in {2, 3, 4}
    return plain and all(item.dtype == x.dtype for item in learned)


def _is_residual(value: Any) -> bool:
    """Whether a value is a sum of two tensors of its own shape."""
    if not isinstance(value, relax.Call) or value.op != tvm.ir.Op.get("relax.add"):
        return False
    return all(tvm_ffi.structural_equal(term.ty, value.ty) for term in value.args)


@mutator
class _Fuse(PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule, kernels: NormKernels) -> None:
        super().__init__(mod)
        self._make = kernels
        self._kernels: dict[tuple[Norm, tuple[int | None, ...]], relax.GlobalVar] = {}
        self._sums: dict[relax.Var, _Sum] = {}
        self._moved: set[relax.Var] = set()

    def rewrite(self, function: relax.Function) -> relax.Function:
        """One function with its norms as calls of kernels."""
        self._sums = _sums(function)
        self._moved = {total.var for total in self._sums.values()}
        return self.visit_expr(function)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        var, value = binding.var, binding.value
        if var in self._moved:
            return
        if not _is_norm(value):
            super().visit_var_binding_(binding)
            return
        x, *learned = value.args
        total = self._sums.get(var)
        norm = Norm(
            size=int(x.ty.shape[-1]),
            dtype=str(x.ty.dtype),
            epsilon=float(value.attrs.epsilon),
            centered=len(learned) > 1,
            adds=total is not None,
            keeps_sum=total is not None and total.kept,
            leading=x.ty.ndim - 1,
        )
        inputs = [self.visit_expr(term) for term in (total.terms if total else (x,))]
        results = [total.var, var] if total and total.kept else [var]
        types = [result.ty for result in results]
        call = relax.call_tir(
            self._kernel(norm, known_sizes(x)[:-1]),
            [*inputs, *map(self.visit_expr, learned)],
            out_ty=types if len(types) > 1 else types[0],
        )
        if len(results) == 1:
            self._bind(var, call)
            return
        both = self.builder_.emit(call)
        for index, result in enumerate(results):
            self._bind(result, relax.TupleGetItem(both, index))

    def _bind(self, var: relax.Var, value: relax.Expr) -> None:
        inner = isinstance(var, relax.DataflowVar)
        emit = self.builder_.emit if inner else self.builder_.emit_output
        self.set_var_remap(var, emit(value, var.name))

    def _kernel(self, norm: Norm, outer: tuple[int | None, ...]) -> relax.GlobalVar:
        if (norm, outer) not in self._kernels:
            kernel = self._make(norm, outer).with_attr(NORM, norm.to_json())
            self._kernels[norm, outer] = self.builder_.add_func(kernel, norm.name)
        return self._kernels[norm, outer]
