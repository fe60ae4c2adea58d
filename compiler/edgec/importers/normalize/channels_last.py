"""Convolutions with the channels last, in images and in weights.

Then neighbouring results need the same image points and neighbouring weights, which is what vectors
on CPUs and threads on GPUs want. Inputs and outputs of the model keep their own order.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from edgec.importers.normalize.straight import Rewrite, each_call, operator

LAYOUTS = {"relax.nn.conv2d": ["NHWC", "HWIO"], "relax.nn.conv1d": ["NWC", "WIO"]}


def channels_last(mod: tvm.IRModule) -> tvm.IRModule:
    """Convert convolutions, and what stands between them as far as it doesn't care.

    A module without any stays as it is: the conversion forgets stated shapes.
    """
    names: set[str] = set()
    relax.analysis.post_order_visit(mod["main"].body, lambda expr: names.add(operator(expr)))
    if names.isdisjoint(LAYOUTS):
        return mod
    mod = relax.transform.ConvertLayout(LAYOUTS)(mod)
    mod = relax.transform.CanonicalizeBindings()(mod)
    mod = each_call(mod, _channels_first)
    return relax.transform.DeadCodeElimination()(mod)


def _channels_first(step: Rewrite, call: relax.Call) -> Any:
    """Transposed convolutions, which the conversion takes along though no kernel exists for them."""
    if operator(call) != "relax.nn.conv2d_transpose" or call.attrs.data_layout != "NHWC":
        return None
    attributes = call.attrs
    first = step.emit(relax.op.permute_dims(call.args[0], [0, 3, 1, 2]))
    result = step.emit(
        relax.op.nn.conv2d_transpose(
            first,
            call.args[1],
            strides=[int(size) for size in attributes.strides],
            padding=[int(size) for size in attributes.padding],
            output_padding=[int(size) for size in attributes.output_padding],
            dilation=[int(size) for size in attributes.dilation],
            groups=int(attributes.groups),
            kernel_layout=attributes.kernel_layout,
            out_dtype=attributes.out_dtype,
        )
    )
    return relax.op.permute_dims(result, [0, 2, 3, 1])
