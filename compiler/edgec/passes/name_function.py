"""Give the one function of an imported module the name by which engines call it."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax


@tvm.transform.module_pass(opt_level=0, name="NameFunction")
class NameFunction:
    """Rename ``main``.

    Args:
        name: what it is to be called.
        unwrap: return the one field of the tuple that it returns in place of the tuple.
    """

    def __init__(self, name: str, *, unwrap: bool) -> None:
        self.name = name
        self.unwrap = unwrap

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Replace the function."""
        function = mod["main"]
        if self.unwrap:
            function = _unwrapped(function)
        function = function.with_attr("global_symbol", self.name)
        for attribute in ("num_input", "tir_var_upper_bound"):
            if function.attrs is not None and attribute in function.attrs:
                function = function.without_attr(attribute)
        others = {var: item for var, item in mod.functions_items() if var.name_hint != "main"}
        return tvm.IRModule({**others, relax.GlobalVar(self.name): function})


def _unwrapped(function: relax.Function) -> relax.Function:
    builder = relax.BlockBuilder()
    with builder.function("main", list(function.params), attrs=dict(function.attrs)):
        with builder.dataflow():
            renewed = _inline(builder, function)
            result = builder.emit_output(renewed)
        builder.emit_func_output(result)
    return builder.get()["main"]


def _inline(builder: relax.BlockBuilder, function: relax.Function) -> relax.Expr:
    """The first field of the result, with the function's bindings emitted anew."""
    for block in function.body.blocks:
        for binding in block.bindings:
            builder.emit_normalized(binding)
    result: Any = function.body.body
    values = {
        binding.var: binding.value
        for block in function.body.blocks
        for binding in block.bindings
        if isinstance(binding, relax.VarBinding)
    }
    while isinstance(result, relax.Var) and result in values:
        result = values[result]
    assert isinstance(result, relax.Tuple), "importers return a tuple"
    return result.fields[0]
