"""Checkpoints whose tensors are integer codes already, and how these are taken over as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class CodesForm:
    """What is known of a tensor's codes without reading them.

    Attributes:
        bits: width of a code, 4 or 8: the least of them that holds it.
        group_size: neighbouring codes of a row that share a scale.
        scale_dtype: the type that holds every scale exactly.
        zeros: whether there are zero points.
    """

    bits: int
    group_size: int
    scale_dtype: Literal["float16", "float32"]
    zeros: bool = False


@dataclass(frozen=True)
class Codes:
    """Some rows of a matrix of codes: ``value = (code - zero) * scale``.

    Attributes:
        codes: ``(rows, K)`` int8, signed: [-8, 7] or [-128, 127].
        scales: ``(rows, K / group_size)`` float16 or float32, of either sign.
        zeros: ``(rows, K / group_size)`` int8; None where every zero point is 0.
        bits: width of a code, 4 or 8: the least of them that holds it.
        group_size: neighbouring codes of a row that share a scale.
    """

    codes: NDArray[np.int8]
    scales: NDArray[Any]
    zeros: NDArray[np.int8] | None
    bits: int
    group_size: int


@runtime_checkable
class HasCodes(Protocol):
    """What a checkpoint has beside :class:`~edgec.checkpoints.checkpoint.Checkpoint`'s methods.

    Every method may be called from any thread.
    """

    def codes(self, name: str) -> CodesForm | None:
        """The form of a tensor's codes; None for a tensor that isn't codes with a scale a group.

        Raises:
            CheckpointError: there is no such tensor, or its file is damaged.
        """

    def code_rows(self, name: str, start: int, stop: int) -> Codes:
        """The codes of rows ``[start, stop)`` of axis 0, in new arrays or views of such.

        Reads those bytes alone, or a bounded stripe around them.

        Args:
            name: a tensor for which :meth:`codes` isn't None.
            start: first row.
            stop: the row after the last one.

        Raises:
            CheckpointError: reading failed.
        """
