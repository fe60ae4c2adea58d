"""Use 32-bit types throughout: int64 is slow or unknown on GPUs, float64 on most devices.

Frameworks count in int64 because their indices are. What a model computes with indices fits
32 bits: they are below the sizes of its tensors. Sizes themselves stay int64, as Relax has them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import tvm
from tvm import relax

from edgec.importers.normalize.straight import Rewrite, operator
from edgec.importers.raw import constant_key

if TYPE_CHECKING:
    from collections.abc import Sequence

NARROWER = {"int64": "int32", "uint64": "uint32", "float64": "float32"}
_INT64_ARGUMENTS = {"relax.tensor_to_shape": 0, "relax.gather_nd": 1}
"""Operators that take int64 and nothing else, and as which argument."""


def narrow_types(mod: tvm.IRModule, names: dict[Any, str], inputs: Sequence[str]) -> tvm.IRModule:
    """Narrow every tensor; inputs too, which also get their names; the result becomes a tuple.

    Args:
        mod: the module.
        names: of constants by key; constants that get narrower values are added.
        inputs: names of the parameters.
    """
    return _Narrow(mod, names, inputs).run()


class _Narrow(Rewrite):
    def __init__(self, mod: tvm.IRModule, names: dict[Any, str], inputs: Sequence[str]) -> None:
        super().__init__(mod)
        self._names = names
        self._inputs = list(inputs)
        self._constants: dict[Any, Any] = {}

    def parameter(self, var: relax.Var) -> tuple[relax.Var, relax.Expr]:
        narrow = relax.Var(self._inputs[len(self.parameters)], self.type(var.ty))
        return narrow, narrow

    def type(self, ty: Any) -> Any:
        if not isinstance(ty, relax.TensorType) or str(ty.dtype) not in NARROWER:
            return ty
        dtype = NARROWER[str(ty.dtype)]
        return relax.TensorType(ty.shape, dtype, ndim=ty.ndim if ty.shape is None else -1)

    def constant(self, constant: Any) -> relax.Expr:
        dtype = NARROWER.get(str(constant.value.dtype))
        if dtype is None:
            return constant
        key = (constant_key(constant.value), dtype)
        if key not in self._constants:
            wide = constant.value.numpy()
            if np.issubdtype(wide.dtype, np.integer):
                limits = np.iinfo(dtype)
                wide = wide.clip(limits.min, limits.max)
            narrow = relax.const(tvm.runtime.tensor(np.ascontiguousarray(wide.astype(dtype))))
            self._constants[key] = narrow
            if key[0] in self._names:
                self._names[constant_key(narrow.value)] = self._names[key[0]]
        return self._constants[key]

    def result(self, expr: relax.Expr) -> relax.Expr:
        return expr if isinstance(expr.ty, relax.TupleType) else relax.Tuple([expr])

    def call(self, call: relax.Call) -> relax.Expr:
        if operator(call) in _INT64_ARGUMENTS:
            arguments, index = list(call.args), _INT64_ARGUMENTS[operator(call)]
            arguments[index] = self.emit(relax.op.astype(arguments[index], "int64"))
            return relax.Call(call.op, arguments, call.attrs, call.ty_args)
        types = [self.type(ty) for ty in call.ty_args]
        result = self.emit(relax.Call(call.op, call.args, narrow_attributes(call.attrs), types))
        ty = result.ty
        if isinstance(ty, relax.TensorType) and str(ty.dtype) in NARROWER:
            return relax.op.astype(result, NARROWER[str(ty.dtype)])
        return result


def narrow_attributes(attributes: Any) -> Any:
    """An operator's attributes with 32-bit types in place of 64-bit ones."""
    if attributes is None:
        return None
    info = type(attributes).__tvm_ffi_type_info__
    fields = {field.name: getattr(attributes, field.name) for field in info.fields}
    wide = {
        name: NARROWER[str(value)]
        for name, value in fields.items()
        if "dtype" in name and str(value) in NARROWER
    }
    if not wide:
        return attributes
    return tvm.ir.make_node(info.type_key, **{**fields, **wide})
