"""Give ``image_embed`` the arguments that WebLLM has for it.

WGSL has no bytes, so pixels come as uint32; and where a model manifest names the function it is called
with pixels and weights alone, without the sizes that other engines have for images in pieces.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from edgec.artifacts.web_program import IMAGE_FUNCTION, PIXELS


@tvm.transform.module_pass(opt_level=0, name="WebImages")
class WebImages:
    """Retype the first argument and drop those between it and the weights."""

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Rewrite the function, where there is one; before pixels are read by kernels."""
        found = [var for var in mod.get_global_vars() if var.name_hint == IMAGE_FUNCTION]
        for var in found:
            builder = relax.BlockBuilder(mod)
            function = mod[var]
            image, *_, weights = function.params
            pixels = relax.Var(image.name, relax.TensorType(image.ty.shape, PIXELS))
            body = _Replace(mod, image, pixels).visit_expr(function.body)
            builder.update_func(
                var,
                relax.Function(
                    [pixels, weights], body, function.ret_ty, function.is_pure, function.attrs
                ),
            )
            mod = builder.get()
        return mod


@mutator
class _Replace(PyExprMutator):  # type: ignore[misc]
    def __init__(self, mod: tvm.IRModule, old: relax.Var, new: relax.Var) -> None:
        super().__init__(mod)
        self._old = old
        self._new = new

    def visit_var_(self, var: relax.Var) -> relax.Expr:
        return self._new if var.same_as(self._old) else super().visit_var_(var)
