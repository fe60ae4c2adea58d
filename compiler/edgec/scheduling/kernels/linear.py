"""What every platform's kernels for linear layers are made from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Protocol

LINEAR = "edgec.linear"
"""Attribute of a linear layer's kernel: what it computes, as :meth:`Linear.to_json` says it."""


@dataclass(frozen=True)
class Linear:
    """``y = x @ w.T`` with weights as they are stored.

    Attributes:
        n: output features.
        k: input features.
        x_dtype: of the activations, ``(m, k)``.
        y_dtype: of the result, ``(m, n)``.
        w_dtype: of plain weights ``(n, k)``; ``"uint32"`` for words ``(n, k / codes_per_word)``.
        bits: of a stored value ``q``; 0 for plain weights. The weight is ``(q - z) * scale`` with
            ``z = 2**(bits - 1) - 1``.
        group: codes that share a scale.
        scale_dtype: of the scales ``(n, k / group)``.
    """

    n: int
    k: int
    x_dtype: str
    y_dtype: str
    w_dtype: str
    bits: int = 0
    group: int = 0
    scale_dtype: str = ""

    @property
    def codes_per_word(self) -> int:
        """Neighbouring weights in one stored word."""
        return 32 // self.bits if self.bits else 1

    @property
    def name(self) -> str:
        """Part of a kernel's name: ``"q4_2048x512"``."""
        return f"{f'q{self.bits}' if self.bits else self.w_dtype}_{self.n}x{self.k}"

    def to_json(self) -> str:
        """Text, the inverse of :meth:`from_json`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Linear:
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))


class LinearKernels(Protocol):
    """A platform's way to make kernels for linear layers."""

    def __call__(self, linear: Linear, *, single: bool) -> tuple[str, Any]:
        """A kernel's name and its PrimFunc ``(x (m, k), w[, scales], y (m, n))``.

        Args:
            linear: the layer.
            single: whether ``m`` is 1; otherwise it is a symbolic variable of the kernel's own.
        """
