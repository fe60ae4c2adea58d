"""Convolutions with the channels last, in images and in weights.

Then neighbouring results need the same image points and neighbouring weights, which is what vectors
on CPUs and threads on GPUs want. Inputs and outputs of the model keep their own order.
"""

from __future__ import annotations

import tvm
from tvm import relax

LAYOUTS = {"relax.nn.conv2d": ["NHWC", "HWIO"], "relax.nn.conv1d": ["NWC", "WIO"]}


def channels_last(mod: tvm.IRModule) -> tvm.IRModule:
    """Convert convolutions, and what stands between them as far as it doesn't care."""
    mod = relax.transform.ConvertLayout(LAYOUTS)(mod)
    mod = relax.transform.CanonicalizeBindings()(mod)
    return relax.transform.DeadCodeElimination()(mod)
