"""Give an imported function its weights as one tuple, quantized where the recipe says so.

An importer's function takes a tensor for each weight; the passes, the weight files and the engines
know one tuple, the last argument. A matrix with a scheme becomes codes and scales in that tuple,
and the linear layers and lookups that read it become the operators that models of ours have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from edgec.errors import UsageError
from edgec.ir.params import NAME
from edgec.models.matrix import QUANTIZED_MATMUL, QUANTIZED_TAKE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgec.models.parameters import Parameter
    from edgec.quantization.schemes import TensorScheme

_INPUTS = "num_input"


def check_readers(
    mod: tvm.IRModule,
    parameters: Sequence[Parameter],
    schemes: Mapping[str, TensorScheme | None],
) -> None:
    """Refuse to quantize what others than linear layers and lookups read.

    It is no part of the pass, because an error that passes through TVM loses its class.

    Args:
        mod: with an imported ``main``.
        parameters: of the function, after its inputs.
        schemes: by parameter name; None is plain.

    Raises:
        UsageError: names the matrix.
    """
    function = mod["main"]
    weights = list(function.params)[int(function.attrs[_INPUTS]) :]
    matrices = {
        var: item.name
        for var, item in zip(weights, parameters, strict=True)
        if schemes[item.name] is not None
    }
    transposed: dict[relax.Var, relax.Var] = {}

    def readers(expr: relax.Expr) -> list[relax.Var]:
        """Matrices that an expression reads otherwise."""
        found: list[relax.Var] = []
        relax.analysis.post_order_visit(
            expr, lambda part: found.append(part) if isinstance(part, relax.Var) else None
        )
        allowed = None
        if _is_op(expr, "relax.matmul"):
            allowed = expr.args[1] if expr.args[1] in transposed else None
        elif _is_op(expr, "relax.take"):
            allowed = expr.args[0]
        read = [var for var in found if allowed is None or not var.same_as(allowed)]
        return [transposed.get(var, var) for var in read if var in matrices or var in transposed]

    for block in function.body.blocks:
        for binding in block.bindings:
            value = binding.value
            if _is_op(value, "relax.permute_dims") and value.args[0] in matrices:
                transposed[binding.var] = value.args[0]
                continue
            for var in readers(value):
                raise UsageError(
                    f"{matrices[var]} is read by more than linear layers and lookups, so it can't be"
                    " quantized",
                    where="quantization.overrides",
                    remedy=f"add {{match: {matrices[var]!r}, bits: 16}}",
                )


@tvm.transform.module_pass(opt_level=0, name="PackParameters")
class PackParameters:
    """Replace the weights of ``main`` by a tuple.

    Args:
        parameters: of the function, after its ``num_input`` inputs, in order.
        schemes: by parameter name; None is plain.
    """

    def __init__(
        self, parameters: Sequence[Parameter], schemes: Mapping[str, TensorScheme | None]
    ) -> None:
        self.parameters = tuple(parameters)
        self.schemes = dict(schemes)

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite ``main``, which :func:`check_readers` has accepted."""
        function = mod["main"]
        inputs = int(function.attrs[_INPUTS])
        weights = list(function.params)[inputs:]
        assert len(weights) == len(self.parameters), "each weight is a parameter"
        pack = _Pack(mod, dict(zip(weights, self.parameters, strict=True)), self.schemes)
        mod = tvm.IRModule(dict(mod.functions_items()), attrs=mod.attrs)
        mod["main"] = pack.function(function, inputs)
        return mod


@mutator
class _Pack(PyExprMutator):  # type: ignore[misc]
    def __init__(
        self,
        mod: tvm.IRModule,
        parameters: Mapping[relax.Var, Parameter],
        schemes: Mapping[str, TensorScheme | None],
    ) -> None:
        super().__init__(mod)
        self._parameters = parameters
        self._schemes = {var: schemes[item.name] for var, item in parameters.items()}
        fields: list[relax.TensorType] = []
        # The position of each weight in the tuple, or of its codes, which its scales follow.
        self._positions: dict[relax.Var, int] = {}
        for var, item in parameters.items():
            self._positions[var] = len(fields)
            scheme = self._schemes[var]
            if scheme is None:
                fields.append(var.ty)
                continue
            rows, columns = item.shape
            fields.append(relax.TensorType((rows, columns), f"int{scheme.bits}"))
            groups = columns // scheme.group_size
            fields.append(relax.TensorType((rows, groups), scheme.scale_dtype))
        self._tuple = relax.Var(NAME, relax.TupleType(fields))
        self._transposed: dict[relax.Var, relax.Var] = {}

    def function(self, function: relax.Function, inputs: int) -> relax.Function:
        """The function with ``inputs`` inputs and the tuple."""
        changed = relax.Function(
            [*list(function.params)[:inputs], self._tuple],
            self.visit_expr(function.body),
            function.ret_ty,
            function.is_pure,
            function.attrs,
        )
        return relax.analysis.remove_all_unused(changed)

    def visit_var_(self, var: relax.Var) -> relax.Expr:
        if var not in self._parameters:
            return super().visit_var_(var)
        assert self._schemes[var] is None, "check_readers comes before"
        return self._field(self._positions[var])

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        value = binding.value
        if _is_op(value, "relax.permute_dims") and self._quantized(value.args[0]):
            self._transposed[binding.var] = value.args[0]
            return
        super().visit_var_binding_(binding)

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        if _is_op(call, "relax.matmul") and call.args[1] in self._transposed:
            x, codes, scales = call.args[0], *self._stored(self._transposed[call.args[1]])
            arguments = [self.visit_expr(x), codes, scales]
            return relax.call_dps_packed(QUANTIZED_MATMUL, arguments, out_ty=call.ty)
        if _is_op(call, "relax.take") and self._quantized(call.args[0]):
            codes, scales = self._stored(call.args[0])
            arguments = [self.visit_expr(call.args[1]), codes, scales]
            return relax.call_dps_packed(QUANTIZED_TAKE, arguments, out_ty=call.ty)
        return super().visit_call_(call)

    def _quantized(self, expr: relax.Expr) -> bool:
        return isinstance(expr, relax.Var) and self._schemes.get(expr) is not None

    def _stored(self, var: relax.Var) -> tuple[relax.Var, relax.Var]:
        position = self._positions[var]
        return self._field(position), self._field(position + 1)

    def _field(self, position: int) -> relax.Var:
        return self.builder_.emit(relax.TupleGetItem(self._tuple, position))


def _is_op(expr: relax.Expr, name: str) -> bool:
    return isinstance(expr, relax.Call) and getattr(expr.op, "name", "") == name
