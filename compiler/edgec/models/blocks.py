"""What families are built of, on ``relax.frontend.nn``.

Each kind of block has a file of its own: ``matrix.py``, ``norms.py``, ``attention.py``, ``mlp.py``,
``decoder.py``.
"""

from edgec.models.attention import Attention
from edgec.models.decoder import (
    Decoder,
    DecoderLayer,
    ParallelLayer,
    SandwichLayer,
    last_position,
)
from edgec.models.matrix import (
    QUANTIZED_MATMUL,
    QUANTIZED_TAKE,
    Embedding,
    Linear,
    Matrix,
    Piece,
)
from edgec.models.mlp import ACTIVATIONS, MLP, GatedMLP
from edgec.models.norms import LayerNorm, LayerNormOfHeads, Norm, OffsetRMSNorm, RMSNorm

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "QUANTIZED_MATMUL",
    "QUANTIZED_TAKE",
    "Attention",
    "Decoder",
    "DecoderLayer",
    "Embedding",
    "GatedMLP",
    "LayerNorm",
    "LayerNormOfHeads",
    "Linear",
    "Matrix",
    "Norm",
    "OffsetRMSNorm",
    "ParallelLayer",
    "Piece",
    "RMSNorm",
    "SandwichLayer",
    "last_position",
]
