"""Building blocks shared by the families, on ``relax.frontend.nn``.

A block that holds weights also says which checkpoint tensors they come from, so that a family
states its structure once. Weights start plain; ``set_scheme`` turns a matrix into its logical
quantized form: ``codes`` (int4 or int8, shape ``(out, in)``) and ``scales`` (``(out, groups)``),
and the matmul or lookup that reads it into one call of ``edgec.quantized_matmul`` or
``edgec.quantized_take``. The lowering of each target gives these a layout and a kernel; no
block knows a target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from edgec.models.parameters import Parameter, Role, Source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache

    from edgec.quantization.schemes import TensorScheme

QUANTIZED_MATMUL = "edgec.quantized_matmul"
QUANTIZED_TAKE = "edgec.quantized_take"


@dataclass(frozen=True)
class Piece:
    """A checkpoint tensor that fills some rows of a fused matrix.

    Attributes:
        name: last component of its module's name in the checkpoint, such as ``"q_proj"``.
        rows: how many output features it has.
    """

    name: str
    rows: int


class Matrix(nn.Module):  # type: ignore[misc]
    """A weight of shape ``(rows, columns)``, plain or quantized, with an optional bias.

    Args:
        rows: output features, or the vocabulary.
        columns: input features.
        role: what the quantization plan may do with it.
        pieces: checkpoint tensors it is concatenated from; by default one that bears its name.
        bias: whether a bias of shape ``(rows,)`` is added.
        dtype: of the plain weight, the scales and the bias.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        *,
        role: Role,
        pieces: Sequence[Piece] = (),
        bias: bool = False,
        dtype: str,
    ) -> None:
        self.rows = rows
        self.columns = columns
        self.role: Role = role
        self.pieces = tuple(pieces)
        self.dtype = dtype
        self.weight: nn.Parameter | None = nn.Parameter((rows, columns), dtype)
        self.codes: nn.Parameter | None = None
        self.scales: nn.Parameter | None = None
        self.bias = nn.Parameter((rows,), dtype) if bias else None

    def set_scheme(self, scheme: TensorScheme) -> None:
        """Replace the plain weight by codes and scales."""
        self.weight = None
        self.codes = nn.Parameter((self.rows, self.columns), f"int{scheme.bits}")
        self.scales = nn.Parameter(
            (self.rows, self.columns // scheme.group_size), scheme.scale_dtype
        )

    def sources(self, path: str) -> Iterator[Parameter]:
        """The parameters of this block when it stands at ``path`` in the model."""
        parent, _, own = path.rpartition(".")
        pieces = self.pieces or (Piece(own, self.rows),)
        prefix = f"{parent}." if parent else ""

        def named(suffix: str, *shape: int) -> tuple[Source, ...]:
            return tuple(
                Source(f"{prefix}{piece.name}.{suffix}", (piece.rows, *shape)) for piece in pieces
            )

        yield Parameter(
            f"{path}.weight",
            (self.rows, self.columns),
            self.role,
            named("weight", self.columns),
        )
        if self.bias is not None:
            yield Parameter(f"{path}.bias", (self.rows,), "bias", named("bias"))

    def matmul(self, x: Tensor, out_dtype: str | None = None) -> Tensor:
        """``x @ weight.T + bias``: ``(..., columns)`` to ``(..., rows)``, in ``out_dtype``."""
        if self.weight is not None:
            y = op.matmul(x, op.permute_dims(self.weight), out_dtype=out_dtype)
        else:
            y = op.extern(
                QUANTIZED_MATMUL,
                [x, self.codes, self.scales],
                Tensor.placeholder([*x.shape[:-1], self.rows], out_dtype or x.dtype),
            )
        return y if self.bias is None else y + self.bias

    def take(self, ids: Tensor) -> Tensor:
        """Rows ``ids``: ``(n,)`` int32 to ``(n, columns)``."""
        if self.weight is not None:
            return op.take(self.weight, ids, axis=0)
        return op.extern(
            QUANTIZED_TAKE,
            [ids, self.codes, self.scales],
            Tensor.placeholder([*ids.shape, self.columns], self.dtype),
        )


class Linear(Matrix):
    """``(..., in)`` to ``(..., out)``."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        pieces: Sequence[Piece] = (),
        bias: bool = False,
        role: Role = "linear",
        dtype: str,
    ) -> None:
        super().__init__(
            out_features, in_features, role=role, pieces=pieces, bias=bias, dtype=dtype
        )

    def forward(self, x: Tensor, out_dtype: str | None = None) -> Tensor:
        """See :meth:`Matrix.matmul`."""
        return self.matmul(x, out_dtype)


class Embedding(Matrix):
    """Token ids ``(n,)`` to hidden states ``(n, hidden)``; ``matmul`` is a tied head."""

    def __init__(self, vocab_size: int, hidden_size: int, *, dtype: str) -> None:
        super().__init__(vocab_size, hidden_size, role="embedding", dtype=dtype)

    def forward(self, ids: Tensor) -> Tensor:
        """See :meth:`Matrix.take`."""
        return self.take(ids)


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


class GatedMLP(nn.Module):  # type: ignore[misc]
    """``down(silu(gate(x)) * up(x))`` with gate and up fused, https://arxiv.org/abs/2002.05202."""

    def __init__(self, hidden: int, intermediate: int, *, bias: bool, dtype: str) -> None:
        self.gate_up_proj = Linear(
            hidden,
            2 * intermediate,
            pieces=(Piece("gate_proj", intermediate), Piece("up_proj", intermediate)),
            bias=bias,
            dtype=dtype,
        )
        self.down_proj = Linear(intermediate, hidden, bias=bias, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, seq, hidden)`` to the same shape."""
        gate, up = op.split(self.gate_up_proj(x), 2, axis=-1)
        return self.down_proj(op.silu(gate) * up)


class Attention(nn.Module):  # type: ignore[misc]
    """Self-attention over the paged KV cache, which also applies RoPE.

    Query heads may share key-value heads (https://arxiv.org/abs/2305.13245).
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        layer: int,
        qkv_bias: bool,
        out_bias: bool,
        dtype: str,
    ) -> None:
        self.heads = heads
        self.kv_heads = kv_heads
        self.head_dim = head_dim
        self.layer = layer
        self.qkv_proj = Linear(
            hidden,
            (heads + 2 * kv_heads) * head_dim,
            pieces=(
                Piece("q_proj", heads * head_dim),
                Piece("k_proj", kv_heads * head_dim),
                Piece("v_proj", kv_heads * head_dim),
            ),
            bias=qkv_bias,
            dtype=dtype,
        )
        self.o_proj = Linear(heads * head_dim, hidden, bias=out_bias, dtype=dtype)

    def forward(self, x: Tensor, cache: PagedKVCache) -> Tensor:
        """``(batch, seq, hidden)`` to the same shape; appends this step's keys and values."""
        batch, seq, _ = x.shape
        qkv = op.reshape(
            self.qkv_proj(x), (batch, seq, self.heads + 2 * self.kv_heads, self.head_dim)
        )
        y = cache.attention_with_fused_qkv(
            self.layer, qkv, self.heads, sm_scale=self.head_dim**-0.5
        )
        return self.o_proj(op.reshape(y, (batch, seq, self.heads * self.head_dim)))


class DecoderLayer(nn.Module):  # type: ignore[misc]
    """Pre-norm attention and MLP, each with a residual connection."""

    def __init__(
        self, self_attn: nn.Module, mlp: nn.Module, hidden: int, eps: float, *, dtype: str
    ) -> None:
        self.self_attn = self_attn
        self.mlp = mlp
        self.input_layernorm = RMSNorm(hidden, eps, dtype=dtype)
        self.post_attention_layernorm = RMSNorm(hidden, eps, dtype=dtype)

    def forward(self, x: Tensor, cache: PagedKVCache) -> Tensor:
        """``(batch, seq, hidden)`` to the same shape."""
        x = x + self.self_attn(self.input_layernorm(x), cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):  # type: ignore[misc]
    """Embedding, layers and final norm; named ``model`` in checkpoints."""

    def __init__(
        self,
        embed_tokens: Embedding,
        layers: Sequence[nn.Module],
        norm: nn.Module,
    ) -> None:
        self.embed_tokens = embed_tokens
        self.layers = nn.ModuleList(list(layers))
        self.norm = norm

    def forward(self, x: Tensor, cache: PagedKVCache) -> Tensor:
        """Hidden states ``(batch, seq, hidden)`` before the head."""
        for layer in self.layers:
            x = layer(x, cache)
        return self.norm(x)


def last_position(x: Tensor) -> Tensor:
    """``(1, seq, hidden)`` to the last position's ``(1, 1, hidden)``."""
    hidden = x.shape[2]

    def compute(states: object) -> object:
        from tvm import te  # noqa: PLC0415 - only when a model is built

        return te.compute(
            (1, 1, hidden),
            lambda batch, _, column: states[batch, states.shape[1] - 1, column],  # type: ignore[index, attr-defined]
            name="last_position",
        )

    return op.tensor_expr_op(compute, "last_position", [x])
