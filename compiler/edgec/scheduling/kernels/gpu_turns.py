"""Rotary embedding inside GPU attention, for keys that are rotated when they are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tvm.tirx.script import builder as T

from edgec.models.rope import LINEAR, LLAMA3
from edgec.scheduling.kernels.gpu_work_group import Memory, keep

if TYPE_CHECKING:
    from edgec.models.rope import Rope


@dataclass(frozen=True)
class Turns:
    """Rotations by positions.

    Attributes:
        rope: of whole heads, without factors of pairs.
        wanted: whether values are to be rotated, known at run time; the same in all lanes.
        queries: a token's position, of all tokens.
        keys: the position of a sequence's first key, of all sequences.
    """

    rope: Rope
    wanted: Any
    queries: Any
    keys: Any

    def frequency(self, pair: Any) -> Any:
        """Radians by which a position turns a pair of features; see ``Rope.inverse_frequencies``."""
        rate = -2 * math.log2(self.rope.theta) / self.rope.rotary_dim
        plain = keep(T.exp2(T.Cast("float32", pair) * T.float32(rate)), "float32")
        if self.rope.kind == LINEAR:
            return keep(plain * T.float32(self.rope.position_scale), "float32")
        if self.rope.kind != LLAMA3:
            return plain
        scaling = self.rope.scaling
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        length = scaling["original_max_position_embeddings"] / (2 * math.pi)
        turns = plain * T.float32(length / (high - low)) - T.float32(low / (high - low))
        kept = T.min(T.float32(1), T.max(T.float32(0), turns))
        slower = 1 / scaling["factor"]
        return keep(plain * (kept * T.float32(1 - slower) + T.float32(slower)), "float32")


def turn(low: Memory, high: Memory, index: int, angle: Any) -> None:
    """Rotate the point ``(low[index], high[index])``."""
    cosine, sine = keep(T.cos(angle), "float32"), keep(T.sin(angle), "float32")
    x, y = keep(low[index], "float32"), keep(high[index], "float32")
    low[index] = x * cosine - y * sine
    high[index] = y * cosine + x * sine
