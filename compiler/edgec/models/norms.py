"""Normalizations over the last axis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from edgec.models.parameters import Parameter, Source

if TYPE_CHECKING:
    from collections.abc import Iterator


class RMSNorm(nn.Module):  # type: ignore[misc]
    """Root mean square normalization over the last axis, https://arxiv.org/abs/1910.07467."""

    def __init__(self, size: int, eps: float, *, dtype: str) -> None:
        self.size = size
        self.eps = eps
        self.weight = nn.Parameter((size,), dtype)

    def sources(self, path: str) -> Iterator[Parameter]:
        """Its one parameter."""
        name = f"{path}.weight"
        yield Parameter(name, (self.size,), "norm", (Source(name, (self.size,)),))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., size)`` to the same shape."""
        return op.rms_norm(x, self.weight, axes=-1, epsilon=self.eps)


class OffsetRMSNorm(RMSNorm):
    """The same, multiplied by ``1 + weight`` of the checkpoint; the sum is what is stored."""

    def sources(self, path: str) -> Iterator[Parameter]:
        """Its one parameter."""
        name = f"{path}.weight"
        yield Parameter(name, (self.size,), "norm", (Source(name, (self.size,), offset=1.0),))


class LayerNorm(nn.Module):  # type: ignore[misc]
    """Mean 0 and variance 1 over the last axis, then weight and bias.

    See https://arxiv.org/abs/1607.06450.
    """

    def __init__(self, size: int, eps: float, *, dtype: str) -> None:
        self.size = size
        self.eps = eps
        self.weight = nn.Parameter((size,), dtype)
        self.bias = nn.Parameter((size,), dtype)

    def sources(self, path: str) -> Iterator[Parameter]:
        """Its weight and its bias."""
        for name, role in ((f"{path}.weight", "norm"), (f"{path}.bias", "bias")):
            source = Source(name, (self.size,))
            yield Parameter(name, (self.size,), role, (source,))  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """``(..., size)`` to the same shape."""
        return op.layer_norm(x, self.size, self.weight, self.bias, self.eps)


class LayerNormOfHeads(nn.Module):  # type: ignore[misc]
    """Mean 0 and variance 1 within each head, then a weight of each head's own; without bias."""

    def __init__(self, size: int, eps: float, *, heads: int, dtype: str) -> None:
        self.size = size
        self.heads = heads
        self.eps = eps
        self.dtype = dtype
        self.weight = nn.Parameter((heads * size,), dtype)

    def sources(self, path: str) -> Iterator[Parameter]:
        """Its one parameter, of which the checkpoint has a tensor for each head."""
        parts = tuple(
            Source(f"{path}.norms.{head}.weight", (self.size,)) for head in range(self.heads)
        )
        yield Parameter(f"{path}.weight", (self.heads * self.size,), "norm", parts)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., heads, size)`` to the same shape."""
        one, zero = (Tensor.from_const(np.full(self.size, value, self.dtype)) for value in (1, 0))
        normal = op.layer_norm(x, self.size, one, zero, self.eps)
        return normal * op.reshape(self.weight, (self.heads, self.size))


Norm = type[RMSNorm] | type[LayerNorm]
"""A normalization, made from its size, its epsilon and its dtype."""
