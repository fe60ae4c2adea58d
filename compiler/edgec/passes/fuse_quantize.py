"""Quantize activations in the kernel that computes them, where that is a norm or a gated activation.

A norm whose result only linear layers on bytes read then writes bytes and scales and no result; if others
read it too, it writes both. The pass comes after :class:`edgec.passes.lower_linear.LowerLinear`, which
makes quantization a kernel of its own, and what it leaves unread goes with dead code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tvm
import tvm_ffi
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from edgec.ir.params import known_sizes
from edgec.scheduling.kernels.cpu_gate import silu_of_gate
from edgec.scheduling.kernels.cpu_norm import Results, norm_of_rows
from edgec.scheduling.kernels.norm import NORM, Norm
from edgec.scheduling.kernels.quantize_rows import QUANTIZE, QuantizedRows

if TYPE_CHECKING:
    from collections.abc import Iterator


@tvm.transform.module_pass(opt_level=0, name="FuseQuantize")
class FuseQuantize:
    """Args: vector_bits: width of the registers."""

    def __init__(self, vector_bits: int) -> None:
        self.vector_bits = vector_bits

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite the Relax functions and add the kernels they call."""
        fuse = _Fuse(mod, self.vector_bits)
        for var, function in mod.functions_items():
            if isinstance(function, relax.Function):
                fuse.builder_.update_func(var, fuse.rewrite(mod, function))
        return fuse.builder_.get()


@dataclass(frozen=True)
class _Pair:
    """A kernel, or an operator, and the quantization of what it computes.

    Attributes:
        var: bound to the first one's result or results.
        inputs: that it reads.
        kept: types of its results that are still wanted; the quantized one comes last of all.
        outer: known sizes of the leading dimensions.
        norm: what it computes; None for a gated SiLU.
        plain: whether the quantized result is wanted as it is, too.
        quantized: variable of the quantization's results.
        rows: how they are quantized.
        types: of these results.
        unread: variables between the two that nothing reads any more.
    """

    var: relax.Var
    inputs: tuple[relax.Expr, ...]
    kept: tuple[Any, ...]
    outer: tuple[int | None, ...]
    norm: Norm | None
    plain: bool
    quantized: relax.Var
    rows: QuantizedRows
    types: tuple[Any, ...]
    unread: tuple[relax.Var, ...]


class _Block:
    """What the variables of a dataflow block are bound to, and who reads them.

    Args:
        mod: with the kernels that are called.
        block: the block.
    """

    def __init__(self, mod: tvm.IRModule, block: relax.DataflowBlock) -> None:
        self._mod = mod
        self._values: dict[Any, Any] = {binding.var: binding.value for binding in block.bindings}
        self._readers = relax.analysis.udchain(block)

    def pairs(self) -> Iterator[_Pair]:
        """All that one kernel can do, a source with the first of its quantizations."""
        found: set[relax.Var] = set()
        for var, value in self._values.items():
            text = self._attribute(value, QUANTIZE)
            pair = None if text is None else self._pair(var, QuantizedRows.from_json(text))
            if pair is not None and pair.var not in found:
                found.add(pair.var)
                yield pair

    def _pair(self, quantized: relax.Var, rows: QuantizedRows) -> _Pair | None:
        call: Any = self._values[quantized]
        flat = call.args[1][0]
        view = self._operands(flat, "relax.reshape")
        if view is None:
            return None
        y = view[0]
        alone = self._reads_alone(flat, y) and self._reads_alone(quantized, flat)
        var, value = y, self._value(y)
        if isinstance(value, relax.TupleGetItem):
            var, value = value.tuple_value, self._value(value.tuple_value)
        outer, unread = known_sizes(y)[:-1], (flat, y) if alone else ()
        text = self._attribute(value, NORM)
        norm = None if text is None else Norm.from_json(text)
        if norm is not None:
            inputs, results = tuple(value.args[1]), _fields(value.ty_args[0])
        else:
            gated = self._gated(y) if alone else None
            if gated is None or set(outer) - {1, None} or outer.count(None) > 1:
                return None
            inputs, results = (gated,), (y.ty,)
        kept, types = results[:-1] if alone else results, _fields(call.ty_args[0])
        return _Pair(var, inputs, kept, outer, norm, not alone, quantized, rows, types, unread)

    def _gated(self, y: relax.Var) -> relax.Expr | None:
        """What it is ``silu(gate) * up`` of, the two halves of a tensor's last axis."""
        silu, up = self._operands(y, "relax.multiply") or (None, None)
        (gate,) = self._operands(silu, "relax.nn.silu") or (None,)
        low, high = self._value(gate), self._value(up)
        if [getattr(half, "index", None) for half in (low, high)] != [0, 1]:
            return None
        split = self._operands(low.tuple_value, "relax.split")
        if split is None or not low.tuple_value.same_as(high.tuple_value):
            return None
        *outer, size = y.ty.shape.values
        halved = tvm_ffi.structural_equal(split[0].ty.shape, relax.ShapeExpr([*outer, 2 * size]))
        return split[0] if halved else None

    def _attribute(self, value: Any, name: str) -> str | None:
        """An attribute of the kernel that is called, if one is."""
        if getattr(getattr(value, "op", None), "name", "") != "relax.call_tir":
            return None
        found = self._mod[value.args[0]].attrs.get(name)
        return None if found is None else str(found)

    def _operands(self, var: Any, name: str) -> list[Any] | None:
        """What the operator of a name gets whose result this is."""
        value = self._value(var)
        return list(value.args) if getattr(getattr(value, "op", None), "name", "") == name else None

    def _value(self, var: Any) -> Any:
        """What a variable of the block is bound to; None for others."""
        return self._values.get(var)

    def _reads_alone(self, reader: relax.Var, var: relax.Var) -> bool:
        """Whether a variable has this reader and no other."""
        inner = isinstance(var, relax.DataflowVar)
        return inner and all(other.same_as(reader) for other in self._readers[var])


def _fields(types: Any) -> tuple[Any, ...]:
    """Of a tuple type, or the only type there is."""
    return tuple(types.fields) if isinstance(types, relax.TupleType) else (types,)


@mutator
class _Fuse(PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule, vector_bits: int) -> None:
        super().__init__(mod)
        self._vector_bits = vector_bits
        self._kernels: dict[Any, relax.GlobalVar] = {}
        # Of the function that is visited: what is fused, by the first variable of each; variables
        # that are no more; and where results are now, by variable and number.
        self._pairs: dict[relax.Var, _Pair] = {}
        self._gone: set[relax.Var] = set()
        self._items: dict[tuple[relax.Var, int], tuple[relax.Var, int]] = {}

    def rewrite(self, mod: tvm.IRModule, function: relax.Function) -> relax.Function:
        """One function with fewer kernels."""
        self._pairs, self._gone, self._items = {}, set(), {}
        for block in function.body.blocks:
            if isinstance(block, relax.DataflowBlock):
                self._pairs.update({pair.var: pair for pair in _Block(mod, block).pairs()})
        for pair in self._pairs.values():
            self._gone.update((pair.quantized, *pair.unread))
        return self.visit_expr(function)

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        var, value = binding.var, binding.value
        if var in self._pairs:
            self._fuse(self._pairs[var])
        elif var not in self._gone:
            item = isinstance(value, relax.TupleGetItem)
            place = self._items.get((value.tuple_value, value.index)) if item else None
            if place is None:
                super().visit_var_binding_(binding)
            else:
                self._bind(var, relax.TupleGetItem(*place))

    def _fuse(self, pair: _Pair) -> None:
        call = relax.call_tir(
            self._kernel(pair),
            [self.visit_expr(item) for item in pair.inputs],
            out_ty=[*pair.kept, *pair.types],
        )
        both = self.builder_.emit(call)
        for index in range(len(pair.kept)):
            self._items[pair.var, index] = both, index
        for index in range(len(pair.types)):
            self._items[pair.quantized, index] = both, len(pair.kept) + index
        if pair.kept and not isinstance(pair.var.ty, relax.TupleType):
            self._bind(pair.var, relax.TupleGetItem(both, 0))

    def _bind(self, var: relax.Var, value: relax.Expr) -> None:
        inner = isinstance(var, relax.DataflowVar)
        emit = self.builder_.emit if inner else self.builder_.emit_output
        self.set_var_remap(var, emit(value, var.name))

    def _kernel(self, pair: _Pair) -> relax.GlobalVar:
        key = pair.norm, pair.outer, pair.plain, pair.rows
        if key not in self._kernels:
            if pair.norm is None:
                kernel = silu_of_gate(pair.rows, pair.outer, self._vector_bits)
                name = f"gated_silu_{pair.rows.k}"
            else:
                results = Results(pair.rows, pair.plain)
                kernel = norm_of_rows(pair.norm, pair.outer, results, self._vector_bits)
                name = pair.norm.name
            self._kernels[key] = self.builder_.add_func(kernel, f"{name}_quantized")
        return self._kernels[key]
