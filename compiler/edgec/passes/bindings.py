"""Bindings of Relax functions taken out, after the phases with dataflow blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvm import relax

if TYPE_CHECKING:
    from collections.abc import Callable


def straight(function: object) -> bool:
    """Whether it is a Relax function without branches."""
    found: list[relax.If] = []

    def visit(expr: object) -> None:
        if isinstance(expr, relax.If):
            found.append(expr)

    if not isinstance(function, relax.Function):
        return False
    relax.analysis.post_order_visit(function.body, visit)
    return not found


def without(
    function: relax.Function, unwanted: Callable[[relax.VarBinding], bool]
) -> relax.Function:
    """The function without some of its bindings.

    Args:
        function: without branches.
        unwanted: whether to leave a binding out; asked once for each, in order.
    """
    blocks = []
    for block in function.body.blocks:
        kept = [
            binding
            for binding in block.bindings
            if not (isinstance(binding, relax.VarBinding) and unwanted(binding))
        ]
        blocks.append(relax.BindingBlock(kept))
    body = relax.SeqExpr(blocks, function.body.body)
    return relax.Function(
        function.params, body, function.ret_ty, function.is_pure, function.attrs, function.span
    )
