"""What every quantizer returns and every layout packs: codes, scales, optional zero points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class QuantizedTensor:
    """Some rows of a quantized matrix: ``value = (code - zero) * scale``.

    Attributes:
        codes: ``(N, K)`` int8, signed, also when they are 4 bits wide.
        scales: ``(N, K / group size)`` float16 or float32, of either sign.
        bits: width of the codes, 4 or 8.
        zeros: ``(N, K / group size)`` int8; None where every zero point is 0.
    """

    codes: npt.NDArray[np.int8]
    scales: npt.NDArray[Any]
    bits: int
    zeros: npt.NDArray[np.int8] | None = None

    def __post_init__(self) -> None:
        assert self.codes.ndim == self.scales.ndim == 2
        assert self.codes.shape[0] == self.scales.shape[0]
        assert self.codes.shape[1] % self.scales.shape[1] == 0
        assert self.zeros is None or self.zeros.shape == self.scales.shape

    @property
    def group_size(self) -> int:
        """The number of neighbouring codes of a row that share a scale."""
        return int(self.codes.shape[1] // self.scales.shape[1])

    def dequantize(self) -> npt.NDArray[np.float32]:
        """The values, ``(N, K)`` float32; the product is rounded once, to float32."""
        rows, columns = self.codes.shape
        values = self.codes.astype(np.float32).reshape(rows, -1, self.group_size)
        if self.zeros is not None:
            values -= self.zeros[..., None]
        values *= self.scales.astype(np.float32)[..., None]
        return values.reshape(rows, columns)
