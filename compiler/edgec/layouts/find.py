"""Find a layout by the name that a target's profile gives it: the module of that name.

A layout says of every quantized parameter as which tensors it is stored, and turns codes, scales and
zero points into these and back. A module of this folder with ``tensors``, ``stored_rows`` and
``quantized_rows`` is one; there is no list to edit. Plain parameters are the same in all of them: one
tensor, of the shape and under the name of the parameter.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from edgec.errors import UsageError
from edgec.suggest import instead_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from edgec.layouts.specs import TensorSpec
    from edgec.models.parameters import Parameter
    from edgec.parallel import Workspace
    from edgec.quantization.reader import QuantizedCheckpoint
    from edgec.quantization.schemes import FloatType, TensorScheme
    from edgec.quantization.tensors import QuantizedTensor


class StoredRows(Protocol):
    """Reads a weight folder."""

    def __call__(self, name: str, start: int, stop: int, /) -> npt.NDArray[Any]:
        """Rows ``[start, stop)`` along the first axis of a stored tensor, by its name."""


class Layout(Protocol):
    """What a layout's module offers."""

    def tensors(
        self,
        parameters: Sequence[Parameter],
        schemes: Mapping[str, TensorScheme | None],
        dtype: FloatType,
    ) -> list[TensorSpec]:
        """The tensors of a model, in the order of its metadata and of its shards.

        Those of a quantized parameter are its codes, scales and, if it has some, zero points.

        Args:
            parameters: of the model.
            schemes: by parameter name; None is plain.
            dtype: of the plain parameters.
        """

    def stored_rows(
        self,
        quantized: QuantizedCheckpoint,
        spec: TensorSpec,
        start: int,
        stop: int,
        workspace: Workspace,
    ) -> npt.NDArray[Any]:
        """Rows ``[start, stop)`` along the first axis of a tensor of a quantized parameter.

        Args:
            quantized: has the parameter.
            spec: one of those of :meth:`tensors`, which may be a part of a table; rows are
                counted from the beginning of the whole.
            start: the first row.
            stop: the row after the last one.
            workspace: the result may lie in it, until the next call.

        Returns:
            A C-contiguous little-endian array.

        Raises:
            CheckpointError: the quantized checkpoint is damaged.
        """

    def quantized_rows(
        self, stored: StoredRows, parameter: Parameter, scheme: TensorScheme, start: int, stop: int
    ) -> QuantizedTensor:
        """The exact inverse: rows ``[start, stop)`` of a quantized parameter.

        Args:
            stored: reads the tensors.
            parameter: one of the model's.
            scheme: how it is stored.
            start: the first row of the parameter.
            stop: the row after the last one.
        """

    def activation_group(self, parameter: Parameter, scheme: TensorScheme | None) -> int | None:
        """Columns of activations that share a scale where kernels round them to 8 bits.

        Args:
            parameter: one of the model's.
            scheme: how it is stored; None is plain.

        Returns:
            None where the kernels that read the parameter take activations as they are.
        """


def list_layouts() -> list[str]:
    """The names of the layouts: the modules of this folder that store rows."""
    files = Path(__file__).parent.glob("*.py")
    return sorted(path.stem for path in files if _OFFERED in path.read_text())


_OFFERED = "\ndef stored_rows("


def find_layout(name: str, where: str = "layout") -> Layout:
    """The layout of this name.

    Args:
        name: as profiles give it.
        where: it was given, for the message.

    Raises:
        UsageError: there is none; the message lists those that exist.
    """
    known = list_layouts()
    if name not in known:
        raise UsageError(
            f"there is no layout {name!r}",
            where=where,
            remedy=instead_of(name, known, noun="layouts"),
        )
    return cast("Layout", importlib.import_module(f"edgec.layouts.{name}"))
