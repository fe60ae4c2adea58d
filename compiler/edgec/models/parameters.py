"""What a family says about its weights: each parameter and the checkpoint tensors it is made of.

Plain data without TVM, so that checkpoints can be checked, quantized and packed without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["linear", "embedding", "head", "norm", "bias"]


@dataclass(frozen=True)
class Source:
    """One tensor as the checkpoint holds it.

    Attributes:
        name: such as ``"model.layers.0.self_attn.q_proj.weight"``.
        shape: the shape it must have there; ``(out, in)`` for matrices.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Parameter:
    """One parameter of the compiled model.

    Attributes:
        name: such as ``"model.layers.0.self_attn.qkv_proj.weight"``.
        shape: ``(out, in)`` for matrices, ``(size,)`` for norms and biases.
        role: what it is used for; linear, embedding and head are the ones that get quantized.
        sources: the checkpoint tensors whose concatenation along axis 0 it is.
    """

    name: str
    shape: tuple[int, ...]
    role: Role
    sources: tuple[Source, ...]
