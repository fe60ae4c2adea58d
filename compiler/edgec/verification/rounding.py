"""Activations rounded to 8 bits in front of linear layers, as kernels on integers round them.

Such kernels give every group of columns of every row of activations a scale of its own, the largest
magnitude over 127, and add products of integers. What that loses isn't the compiler's doing: torch with
the same rounding says how much it is. It doesn't say which number comes out to the last digits, though.
An activation that lies between two steps falls on either side by an error of 1e-7, the next layers
round what has changed, and after a few of them two computations with the same rounding are as far
from each other as from one without: in a model of six layers with float32 activations the largest
difference of logits was 0.27 between sums in float32 and in float64, and 0.28 between either and no
rounding. So artifacts are compared with the reference that doesn't round, and the one that does is the
measure of how far from it they may be.
"""

from __future__ import annotations

import importlib
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

ACTIVATIONS, CACHE, ALL = "activations", "kv_cache", "rounding"
"""What an artifact's kernels round, as reports name it: one of the two, or both."""

STEPS = 127
"""Steps from 0 to the largest magnitude of a group."""


def rounding(groups: Mapping[int, int]) -> AbstractContextManager[Any]:
    """A context in which torch's products with some matrices round what they multiply.

    Args:
        groups: how many columns share a scale, by the address of the memory that a matrix lies in, of
            all of it or of some of its rows. Empty: nothing is rounded.
    """
    if not groups:
        return nullcontext()
    torch: Any = importlib.import_module("torch")
    dispatch: Any = importlib.import_module("torch.utils._python_dispatch")
    aten = torch.ops.aten
    # The place of the activations among the arguments; the matrix is the next one. Which of them a
    # linear layer becomes depends on its bias, and on whether gradients are wanted.
    places = {
        aten.linear.default: 0,
        aten.matmul.default: 0,
        aten.mm.default: 0,
        aten.addmm.default: 1,
    }

    class Rounding(dispatch.TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            place = places.get(function)
            if place is not None:
                group = groups.get(args[place + 1].untyped_storage().data_ptr())
                if group is not None:
                    args = (*args[:place], rounded(args[place], group), *args[place + 1 :])
            return function(*args, **(kwargs or {}))

    mode: AbstractContextManager[Any] = Rounding()
    return mode


def rounded(x: Any, group: int) -> Any:
    """Activations ``(..., k)``, each rounded to the nearest step of its group, ties to even.

    Args:
        x: a float32 tensor.
        group: columns that share a scale; divides ``k``.
    """
    import torch  # noqa: PLC0415 - an extra

    groups = x.reshape(*x.shape[:-1], -1, group)
    scales = groups.abs().amax(dim=-1, keepdim=True) / STEPS
    steps = torch.where(scales > 0, torch.round(groups / scales), torch.zeros_like(groups))
    return (steps * scales).reshape(x.shape)


def all_rounding(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The figures of a model that rounds all that the artifact's kernels do; empty if there are none."""
    return next((report[name] for name in (ALL, ACTIVATIONS, CACHE) if name in report), {})
