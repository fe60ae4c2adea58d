"""What a quantized form of checkpoints can do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np
    from numpy.typing import NDArray

    from edgec.checkpoints.codes import Codes, CodesForm
    from edgec.checkpoints.quantized.stored import Stored


class Restored(Protocol):
    """One float tensor that is computed from stored ones. Used from any thread.

    Attributes:
        shape: of the float tensor.
        dtype: the float type it stands for, as safetensors writes it.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the float tensor; ``(out, in)`` for matrices."""

    @property
    def dtype(self) -> str:
        """One of :data:`edgec.checkpoints.dtypes.FLOATS`."""

    def rows_into(self, start: int, stop: int, out: NDArray[np.float32]) -> None:
        """Compute rows ``[start, stop)`` into ``out``, which has their shape.

        Raises:
            CheckpointError: reading failed, or a scale isn't finite.
        """


@runtime_checkable
class Coded(Protocol):
    """What a restored tensor has beside :class:`Restored` if its codes can be taken over."""

    def form(self) -> CodesForm | None:
        """Their form; None where they can't be."""

    def code_rows(self, start: int, stop: int) -> Codes:
        """Rows ``[start, stop)`` of the codes; asked for only if there is a form.

        Raises:
            CheckpointError: reading failed.
        """


@dataclass(frozen=True)
class Layout:
    """Which stored tensors stand for which float tensors, by their names alone.

    Attributes:
        restored: the parts of each float tensor, the one with its codes first.
        unused: stored tensors that no float tensor needs, such as scales of activations.
        biases: stored biases that writers add though the model has none; only zeros are ignored.
    """

    restored: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unused: frozenset[str] = frozenset()
    biases: frozenset[str] = frozenset()


class Format(Protocol):
    """A quantized form, as one ``quantization_config`` describes it."""

    @property
    def text(self) -> str:
        """One line for people, without the method's name."""

    @property
    def codes(self) -> CodesForm | None:
        """The form of most of its tensors' codes, as far as the config alone tells.

        None where values aren't codes with a scale for each group.
        """

    def layout(self, names: Collection[str]) -> Layout:
        """Sort out the names of all stored tensors."""

    def restore(self, name: str, stored: Stored) -> Restored:
        """The float tensor ``name``, one of ``layout().restored``; reads headers, no weights.

        Raises:
            CheckpointError: a part is missing, or parts don't fit together.
        """


def modules(names: Collection[str], suffix: str) -> list[str]:
    """The modules that have a tensor ``.suffix``: what stands before it, sorted."""
    return sorted(name.removesuffix(suffix) for name in names if name.endswith(suffix))
