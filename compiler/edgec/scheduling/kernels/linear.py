"""What every platform's kernels for linear layers are made from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Stored = tuple[tuple[int, ...], str]
"""Shape and dtype of a stored tensor."""

_TILED_AXES = 3

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
        bits: of a stored value ``q``; 0 for plain weights. The weight is ``(q - z) * scale``.
        group: codes that share a scale.
        scale_dtype: of the scales ``(n, k / group)``.
        zeros: whether each group has its ``z``, in words ``(n, zero_words)`` as codes are; otherwise
            ``z = 2**(bits - 1) - 1``, or if tiled one more.
        tiled: whether words and scales lie in tiles of 16 rows, see ``layouts.dot4``, and not row by
            row, see ``layouts.mlc``.
    """

    n: int
    k: int
    x_dtype: str
    y_dtype: str
    w_dtype: str
    bits: int = 0
    group: int = 0
    scale_dtype: str = ""
    zeros: bool = False
    tiled: bool = False

    @classmethod
    def stored(
        cls, weights: Sequence[Stored], *, n: int, k: int, x_dtype: str, y_dtype: str
    ) -> Linear:
        """Find out what the stored tensors of a layer say of it.

        Args:
            weights: shape and dtype of the plain weight, or of words, scales and perhaps zero points.
            n: output features; the weights may have the rows of several layers.
            k: input features.
            x_dtype: of the activations.
            y_dtype: of the result.
        """
        words, w_dtype = weights[0]
        plain = cls(n, k, x_dtype, y_dtype, w_dtype)
        if len(weights) == 1:
            return plain
        groups, scale_dtype = weights[1]
        return replace(
            plain,
            bits=32 * words[1] // k,
            group=k // groups[1],
            scale_dtype=scale_dtype,
            zeros=len(weights) > len(("words", "scales")),
            tiled=len(words) == _TILED_AXES,
        )

    @property
    def middle(self) -> int:
        """``z`` where groups have none of their own."""
        return (1 << (self.bits - 1)) - (0 if self.tiled else 1)

    @property
    def zero_words(self) -> int:
        """Words of a row's zero points."""
        return -(-(self.k // self.group) // self.codes_per_word)

    @property
    def codes_per_word(self) -> int:
        """Neighbouring weights in one stored word."""
        return 32 // self.bits if self.bits else 1

    @property
    def name(self) -> str:
        """Part of a kernel's name: ``"q4_2048x512"``."""
        stored = f"q{self.bits}{'z' * self.zeros}" if self.bits else self.w_dtype
        return f"{stored}_{self.n}x{self.k}"

    def to_json(self) -> str:
        """Text, the inverse of :meth:`from_json`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Linear:
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))


class Preparation(NamedTuple):
    """What happens to activations before a kernel reads them, once for all layers that read them.

    Attributes:
        name: of its kernel; equal names stand for equal preparations.
        function: the PrimFunc ``(x (m, k), *outputs)``.
        outputs: shapes and dtypes of the outputs, from ``m``: a number or a TIR expression.
    """

    name: str
    function: Any
    outputs: Callable[[Any], list[tuple[tuple[Any, ...], str]]]


class LinearKernel(NamedTuple):
    """A linear layer's kernel.

    Attributes:
        name: of the kernel.
        function: the PrimFunc ``(x (m, k), w[, scales[, zeros]], y (m, n))``; with a preparation, its
            outputs stand in the place of ``x``.
        preparation: of the activations, if the kernel wants one.
    """

    name: str
    function: Any
    preparation: Preparation | None = None


class LinearKernels(Protocol):
    """A platform's way to make kernels for linear layers."""

    def __call__(self, linear: Linear, *, single: bool) -> LinearKernel:
        """The kernel of a layer.

        Args:
            linear: the layer.
            single: whether ``m`` is 1; otherwise it is a symbolic variable of the kernel's own.
        """
