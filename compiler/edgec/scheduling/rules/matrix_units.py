"""Products of many rows on matrix units, for linear layers with float16 activations.

A work-group makes a tile of the result. For every step along ``k`` it brings a strip of activations
and of (dequantized) weights into shared memory; each of its sub-groups multiplies its part of them,
fragment by fragment, with float32 sums that stay in registers until the tile is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm import s_tir, tirx
from tvm.s_tir.dlight.base import ScheduleRule

from edgec.scheduling.kernels.linear import LINEAR

if TYPE_CHECKING:
    from edgec.scheduling.intrinsics.fragments import MatrixUnits, Tile

_SUB_GROUP = 32
_VECTOR = 4


class MatrixUnitMatmul(ScheduleRule):  # type: ignore[misc]
    """Args: units: the platform's matrix instructions; tile: sizes that its limits allow."""

    def __init__(self, units: MatrixUnits, tile: Tile) -> None:
        self.units = units
        self.tile = tile

    def apply(self, func: tirx.PrimFunc, _target: Any, _tunable: bool) -> Any:
        """Schedule a linear layer of many rows, or return None to leave it to another rule."""
        if not func.attrs.get(LINEAR):
            return None
        x = func.params[0]
        if str(x.dtype) != "float16" or isinstance(x.shape[0], tirx.IntImm):
            return None
        self.units.register()
        return self._schedule(s_tir.Schedule(func))

    def _schedule(self, sch: Any) -> Any:
        units, tile, size = self.units, self.tile, self.units.size
        matmul = sch.get_sblock("matmul")
        sch.pad_einsum(
            matmul,
            [size * w * f for w, f in zip(tile.warps, tile.fragments, strict=True)]
            + [size * tile.steps],
        )
        outer, inner, warp, k0, k1 = self._tile_loops(sch, matmul)
        strips = [self._bring(sch, outer, operand, k0) for operand in (0, 1)]
        for strip in strips:
            _inline_producers(sch, strip)
        a = sch.cache_read(outer, 0, units.a_scope)
        b = sch.cache_read(outer, 1, units.b_scope)
        sch.compute_at(a, k1)
        sch.compute_at(b, k1)
        staged = sch.cache_write(outer, 0, units.shared_scope)
        sums = sch.cache_write(outer, 0, units.sum_scope)
        sch.reverse_compute_at(sums, warp)
        sch.reverse_compute_at(staged, warp)
        start = sch.decompose_reduction(outer, k0)
        self._tensorize_copy(sch, a, "load_a")
        self._tensorize_copy(sch, b, "load_b")
        self._tensorize_copy(sch, sums, "store")
        fill = sch.get_child_blocks(start)[0]
        sch.tensorize(sch.get_loops(fill)[-2], units.intrinsic("fill"))
        sch.tensorize(sch.get_loops(inner)[-3], units.intrinsic("multiply"))
        _inline_consumers(sch, staged)
        fused = sch.fuse(*sch.get_loops(staged)[-2:])
        _, lane, vector = sch.split(fused, [None, _SUB_GROUP, _VECTOR])
        sch.bind(lane, "threadIdx.x")
        sch.vectorize(vector)
        return sch

    def _tile_loops(self, sch: Any, matmul: Any) -> tuple[Any, Any, Any, Any, Any]:
        tile, size = self.tile, self.units.size
        i, j, k = sch.get_loops(matmul)
        i, i_in = sch.split(i, [None, size])
        j, j_in = sch.split(j, [None, size])
        k, k_in = sch.split(k, [None, size])
        sch.reorder(i, j, k, i_in, j_in, k_in)
        outer = sch.blockize(i_in)
        i0, i1, i2 = sch.split(i, [None, tile.warps[0], tile.fragments[0]])
        j0, j1, j2 = sch.split(j, [None, tile.warps[1], tile.fragments[1]])
        k0, k1 = sch.split(k, [None, tile.steps])
        sch.reorder(i0, j0, i1, j1, k0, k1, i2, j2)
        sch.bind(i0, "blockIdx.y")
        sch.bind(j0, "blockIdx.x")
        warp = sch.fuse(i1, j1)
        sch.bind(warp, "threadIdx.y")
        return outer, matmul, warp, k0, k1

    def _bring(self, sch: Any, outer: Any, operand: int, k0: Any) -> Any:
        """A strip of one operand into shared memory, spread over the work-group."""
        strip = sch.cache_read(outer, operand, self.units.shared_scope)
        sch.compute_at(strip, k0)
        fused = sch.fuse(*sch.get_loops(strip)[-2:])
        warps = self.tile.warps[0] * self.tile.warps[1]
        _, warp, lane, vector = sch.split(fused, [None, warps, _SUB_GROUP, _VECTOR])
        sch.bind(warp, "threadIdx.y")
        sch.bind(lane, "threadIdx.x")
        sch.vectorize(vector)
        # Rows begin at different banks, so that a fragment's rows are read without conflicts.
        sch.storage_align(strip, 0, axis=-2, factor=16, offset=8)
        return strip

    def _tensorize_copy(self, sch: Any, block: Any, step: str) -> None:
        size = self.units.size
        i, j = sch.get_loops(block)[-2:]
        i0, i1 = sch.split(i, [None, size])
        j0, j1 = sch.split(j, [None, size])
        sch.reorder(i0, j0, i1, j1)
        sch.tensorize(i1, self.units.intrinsic(step))


def _inline_producers(sch: Any, block: Any) -> None:
    """Padding and dequantization happen where the strip is filled."""
    while producers := sch.get_producers(block):
        for producer in producers:
            sch.compute_inline(producer)


def _inline_consumers(sch: Any, block: Any) -> None:
    """Rounding, and leaving the padding away, happen where the tile is written."""
    while consumers := sch.get_consumers(block):
        for consumer in consumers:
            sch.reverse_compute_inline(consumer)
