"""Quantization methods: one file per method, found by its name in a recipe.

A method module has a function ``quantize`` of the form :class:`Quantize`. Rows are independent:
a matrix gives the same codes whether it comes whole or in blocks of rows.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Protocol, cast

from edgec.errors import UsageError
from edgec.suggest import instead_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgec.parallel import Workspace
    from edgec.quantization.schemes import TensorScheme
    from edgec.quantization.tensors import QuantizedTensor


class Quantize(Protocol):
    """The function that a method module has to have."""

    def __call__(
        self,
        weight: npt.NDArray[np.float32],
        scheme: TensorScheme,
        workspace: Workspace | None = None,
    ) -> QuantizedTensor:
        """Quantize some rows of a matrix.

        Args:
            weight: ``(n, K)``, C-contiguous; it is not changed.
            scheme: how to store it; K is a multiple of the group size.
            workspace: scratch memory. The result may lie in it, and then lives until the next
                call with it.

        Raises:
            BadRowError: a row that has no code, such as one with a NaN.
        """


def method_names() -> list[str]:
    """The names of all methods, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_method(name: str) -> Quantize:
    """The ``quantize`` function of a method.

    Raises:
        UsageError: no method has this name; the message lists those that exist.
    """
    names = method_names()
    if name not in names:
        raise UsageError(
            f"there is no quantization method {name!r}",
            where="quantization.method",
            remedy=instead_of(name, names, noun="methods"),
        )
    return cast("Quantize", importlib.import_module(f"{__name__}.{name}").quantize)
