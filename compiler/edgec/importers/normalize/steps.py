"""The order of the steps, and the types and weights of what comes out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax, tirx

from edgec.importers.imported import ImportedModel, TensorType
from edgec.importers.normalize.booleans import lower_booleans
from edgec.importers.normalize.channels_last import channels_last
from edgec.importers.normalize.fold_batch_norm import fold_batch_norm
from edgec.importers.normalize.fold_constants import fold_constants
from edgec.importers.normalize.lift_constants import lift_constants
from edgec.importers.normalize.linear_form import Lifted, linear_form
from edgec.importers.normalize.narrow_types import narrow_types
from edgec.importers.normalize.simplify import simplify
from edgec.models.parameters import Parameter, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from edgec.importers.raw import RawModel


def normalized(raw: RawModel) -> ImportedModel:
    """The model in the form that :class:`ImportedModel` describes."""
    names = dict(raw.names)
    mod = _name_sizes(raw.mod, raw.inputs)
    mod = narrow_types(mod, names, [item.name for item in raw.inputs])
    mod = lower_booleans(mod)
    mod = simplify(mod)
    mod, matrices = linear_form(mod, names)
    mod = relax.transform.DeadCodeElimination()(mod)
    mod = fold_batch_norm(mod)
    mod = channels_last(mod)
    mod = relax.transform.DeadCodeElimination()(fold_constants(mod))
    mod = simplify(mod)
    mod, others = lift_constants(mod, names, [item.name for item in matrices])
    mod = relax.transform.DeadCodeElimination()(mod)
    return _described(mod, raw, [*matrices, *others])


def _name_sizes(mod: tvm.IRModule, inputs: Sequence[TensorType]) -> tvm.IRModule:
    """Give varying sizes the names of the signature, and drop bounds under the old ones."""
    main = mod["main"]
    renamed: dict[Any, Any] = {}
    named: dict[str, Any] = {}
    for var, declared in zip(main.params, inputs, strict=True):
        for size, name in zip(var.ty.shape.values, declared.shape, strict=True):
            if isinstance(name, str) and not isinstance(size, tirx.IntImm):
                renamed[size] = named.setdefault(name, tirx.Var(name, "int64"))
    for attribute in ("tir_var_upper_bound", "tir_var_lower_bound", "params"):
        main = main.without_attr(attribute)
    if renamed:
        main = main.bind_symbolic_vars(renamed)
    return tvm.IRModule({"main": main})


def _described(mod: tvm.IRModule, raw: RawModel, lifted: list[Lifted]) -> ImportedModel:
    main = mod["main"]
    count = len(raw.inputs)
    kept = {var.name for var in main.params[count:]}
    assert kept == {item.name for item in lifted}, "each weight is a parameter"
    mod = tvm.IRModule({"main": main.with_attr("num_input", count)})
    result = main.ret_ty
    types = list(result.fields) if isinstance(result, relax.TupleType) else [result]

    def weights() -> Iterator[tuple[str, NDArray[np.generic]]]:
        for item in lifted:
            yield item.name, item.array()

    return ImportedModel(
        mod=mod,
        inputs=tuple(
            TensorType(declared.name, declared.shape, str(var.ty.dtype))
            for declared, var in zip(raw.inputs, main.params[:count], strict=True)
        ),
        outputs=tuple(
            TensorType(name, _sizes(ty), str(ty.dtype))
            for name, ty in zip(raw.outputs, types, strict=True)
        ),
        bounds=raw.bounds,
        parameters=tuple(
            Parameter(item.name, item.shape, item.role, (Source(item.name, item.shape),))
            for item in lifted
        ),
        weights=weights,
    )


def _sizes(ty: Any) -> tuple[int | str, ...]:
    assert ty.shape is not None, "the shape of every output is known"
    return tuple(
        int(size) if isinstance(size, tirx.IntImm) else str(size) for size in ty.shape.values
    )
