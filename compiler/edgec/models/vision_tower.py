"""The vision tower of Qwen2.5-VL, https://arxiv.org/abs/2502.13923, section 2.1, for images of one size.

Patches become hidden states that attend to each other, in most layers within windows only and in some
in the whole image; at the end neighbours are merged into one token of the language model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm import te, tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from edgec.models.blocks import GatedMLP, Linear, RMSNorm
from edgec.models.image_grid import ImageGrid
from edgec.models.mlp import gelu
from edgec.models.parameters import Parameter, Role, Source
from edgec.models.rotation import Turns, rotate

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt


SEGMENT_ATTENTION = "edgec.segment_attention"
"""Attention of tokens within their segment, which each platform lowers to its kernel: queries, keys
and values ``(n, heads, head_dim)`` and the segments' first tokens, int32 ``(segments + 1,)``."""

FRAMES = 2
"""Pictures that a patch is made of: a video's neighbours, or twice the same image."""
_CHANNELS = 3
_EPS = 1e-6
_THETA = 10000.0
# Mean and deviation of what CLIP was trained on, which these models normalize images by.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
# Columns of a group of codes by default: a matrix whose columns don't divide is left as it is.
_GROUP = 32


@dataclass(frozen=True)
class VisionConfig:
    """The fields of ``vision_config`` that shape the tower.

    Attributes:
        depth: layers.
        hidden_size: of the hidden states of patches.
        intermediate_size: of the MLPs.
        num_heads: of the attention.
        out_hidden_size: of the language model.
        patch_size: pixels of each side of a patch.
        spatial_merge_size: patches of each side of a token.
        window_size: pixels of each side of a window.
        full_layers: the layers that attend to the whole image.
    """

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_hidden_size: int
    patch_size: int
    spatial_merge_size: int
    window_size: int
    full_layers: frozenset[int]

    @property
    def head_dim(self) -> int:
        """Size of one head."""
        return self.hidden_size // self.num_heads


class PatchEmbed(nn.Module):  # type: ignore[misc]
    """A convolution whose windows don't overlap: one matrix product for each patch."""

    def __init__(self, config: VisionConfig, *, dtype: str) -> None:
        self.shape = (config.hidden_size, _CHANNELS, FRAMES, config.patch_size, config.patch_size)
        self.weight = nn.Parameter(self.shape, dtype)

    def sources(self, path: str) -> Iterator[Parameter]:
        """Its one parameter."""
        name = f"{path}.weight"
        yield Parameter(name, self.shape, "plain", (Source(name, self.shape),))

    def forward(self, patches: Tensor) -> Tensor:
        """``(n, 3 * 2 * patch * patch)`` to ``(n, hidden)``."""
        matrix = op.reshape(self.weight, (self.shape[0], math.prod(self.shape[1:])))
        return op.matmul(patches, op.permute_dims(matrix))


class VisionAttention(nn.Module):  # type: ignore[misc]
    """Attention of patches within segments, with two-dimensional rotary positions."""

    def __init__(self, config: VisionConfig, *, dtype: str) -> None:
        self.heads = config.num_heads
        self.head_dim = config.head_dim
        self.qkv = _linear(config.hidden_size, 3 * config.hidden_size, dtype=dtype)
        self.proj = _linear(config.hidden_size, config.hidden_size, dtype=dtype)

    def forward(self, x: Tensor, turns: Turns, starts: Tensor) -> Tensor:
        """``(n, hidden)`` to the same shape; ``starts`` are the segments' first patches."""
        count, hidden = x.shape
        qkv = op.reshape(self.qkv(x), (1, count, 3 * self.heads, self.head_dim))
        turned = rotate(qkv, turns, 2 * self.heads, "vision_rotary")
        query, key, value = (
            op.reshape(part, (count, self.heads, self.head_dim))
            for part in op.split(turned, 3, axis=2)
        )
        y = op.extern(
            SEGMENT_ATTENTION, [query, key, value, starts], Tensor.placeholder(query.shape, x.dtype)
        )
        return self.proj(op.reshape(y, (count, hidden)))


class VisionBlock(nn.Module):  # type: ignore[misc]
    """Pre-norm attention and MLP, each with a residual connection."""

    def __init__(self, config: VisionConfig, *, dtype: str) -> None:
        hidden, intermediate = config.hidden_size, config.intermediate_size
        self.norm1 = RMSNorm(hidden, _EPS, dtype=dtype)
        self.attn = VisionAttention(config, dtype=dtype)
        self.norm2 = RMSNorm(hidden, _EPS, dtype=dtype)
        self.mlp = GatedMLP(hidden, intermediate, bias=True, dtype=dtype)
        self.mlp.gate_up_proj.role = _role(hidden)
        self.mlp.down_proj.role = _role(intermediate)

    def forward(self, x: Tensor, turns: Turns, starts: Tensor) -> Tensor:
        """``(n, hidden)`` to the same shape."""
        x = x + self.attn(self.norm1(x), turns, starts)
        return x + self.mlp(self.norm2(x))


class PatchMerger(nn.Module):  # type: ignore[misc]
    """Neighbouring patches to a token: a norm, and an MLP of their hidden states end to end.

    Checkpoints call its layers ``mlp.0`` and ``mlp.2``, see :data:`NAMES`.
    """

    def __init__(self, config: VisionConfig, *, dtype: str) -> None:
        self.width = config.hidden_size * config.spatial_merge_size**2
        self.ln_q = RMSNorm(config.hidden_size, _EPS, dtype=dtype)
        self.mlp_in = _linear(self.width, self.width, dtype=dtype)
        self.mlp_out = _linear(self.width, config.out_hidden_size, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """``(patches, hidden)`` to ``(tokens, hidden of the language model)``."""
        merged = op.reshape(self.ln_q(x), (-1, self.width))
        return self.mlp_out(gelu(self.mlp_in(merged)))


NAMES = {"mlp_in": "mlp.0", "mlp_out": "mlp.2", "patch_embed": "patch_embed.proj"}
"""What checkpoints call components of the tower's paths."""


class VisionTower(nn.Module):  # type: ignore[misc]
    """An image's pixels to tokens; named ``visual`` in checkpoints.

    Args:
        config: its shape.
        dtype: of hidden states.
    """

    def __init__(self, config: VisionConfig, *, dtype: str) -> None:
        self.config = config
        self.dtype = dtype
        self.patch_embed = PatchEmbed(config, dtype=dtype)
        self.blocks = nn.ModuleList([VisionBlock(config, dtype=dtype) for _ in range(config.depth)])
        self.merger = PatchMerger(config, dtype=dtype)

    def grid(self, size: int) -> ImageGrid:
        """The patches of an image with sides of so many pixels."""
        config = self.config
        return ImageGrid(size, config.patch_size, config.spatial_merge_size, config.window_size)

    def forward(self, image: Tensor) -> Tensor:
        """Pixels ``(1, size, size, 3)`` from 0 to 255 to ``(tokens, hidden of the language model)``."""
        grid = self.grid(int(image.shape[1]))
        turns = self._turns(grid)
        whole = _constant(np.array([0, grid.patches], "int32"))
        windows = _constant(grid.window_starts())
        x = self.patch_embed(self._patches(image, grid))
        for index, block in enumerate(self.blocks):
            x = block(x, turns, whole if index in self.config.full_layers else windows)
        return op.take(self.merger(x), _constant(np.argsort(grid.token_order())), axis=0)

    def _patches(self, image: Tensor, grid: ImageGrid) -> Tensor:
        """Normalized pixels in the order of the tower, ``(n, 3 * 2 * patch * patch)``."""
        size, dtype = grid.patch, self.dtype
        area = size * size

        def compute(pixels: Any, places: Any) -> Any:
            def value(patch: Any, column: Any) -> Any:
                channel, inner = column // (FRAMES * area), column % area
                y = places[patch, 0] * size + inner // size
                x = places[patch, 1] * size + inner % size
                share = pixels[0, y, x, channel] * tirx.const(1 / 255, "float32")
                return ((share - _choose(channel, _MEAN)) / _choose(channel, _DEVIATION)).astype(
                    dtype
                )

            shape = (grid.patches, _CHANNELS * FRAMES * area)
            return te.compute(shape, value, name="image_patches")

        # An operator of its own: what integers pixels are is the target's business.
        pixels = op.astype(image, "float32")
        return op.tensor_expr_op(compute, "image_patches", [pixels, _constant(grid.patch_places())])

    def _turns(self, grid: ImageGrid) -> Turns:
        """Cosines and sines of the patches' angles: half of the pairs by row, half by column."""
        quarter = self.config.head_dim // 4
        frequencies = _THETA ** (-np.arange(quarter, dtype=np.float32) / np.float32(quarter))
        angles = grid.patch_places()[:, :, None].astype(np.float32) * frequencies
        flat = angles.reshape(len(angles), 2 * quarter)
        return Turns(_constant(np.cos(flat)), _constant(np.sin(flat)))


def _linear(columns: int, rows: int, *, dtype: str) -> Linear:
    return Linear(columns, rows, bias=True, role=_role(columns), dtype=dtype)


def _role(columns: int) -> Role:
    """Quantized like other layers, where groups of the usual size divide its rows."""
    return "plain" if columns % _GROUP else "linear"


def _constant(values: npt.NDArray[Any]) -> Tensor:
    dtype = "int32" if np.issubdtype(values.dtype, np.integer) else "float32"
    return Tensor.from_const(np.ascontiguousarray(values, dtype))


def _choose(channel: Any, values: tuple[float, float, float]) -> Any:
    red, green, blue = (tirx.const(value, "float32") for value in values)
    return tirx.if_then_else(channel == 0, red, tirx.if_then_else(channel == 1, green, blue))
