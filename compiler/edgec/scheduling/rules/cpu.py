"""The default CPU schedule of element-wise kernels and row reductions.

Matrix products have hand-written kernels and attention comes scheduled, so what is left is bound
by memory: normalizations, activations, residual additions, lookups. Rows are spread over the
threads and the last axis is vectorized.
"""

from __future__ import annotations

from typing import Any

from tvm import s_tir, tirx
from tvm.s_tir.dlight.base import ScheduleRule

_PARALLEL_FROM = 1 << 14
"""Elements from which waking a thread (some microseconds) pays."""


class CPUElementwise(ScheduleRule):  # type: ignore[misc]
    """Parallel rows, vectorized columns; reductions keep their order of additions."""

    def __init__(self, vector_bits: int) -> None:
        self.lanes = vector_bits // 32

    def apply(self, func: tirx.PrimFunc, _target: Any, _tunable: bool) -> Any:
        """Schedule one function, or return None to leave it to another rule."""
        if "global_symbol" in func.attrs and func.attrs.get("tirx.is_scheduled"):
            return None
        schedule = s_tir.Schedule(func)
        blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
        if not blocks:
            return None
        for block in blocks[:-1]:
            _try_inline(schedule, block)
        for block in schedule.get_child_blocks(schedule.get_sblock("root")):
            self.schedule_block(schedule, block)
        return schedule

    def schedule_block(self, schedule: Any, block: Any) -> None:
        """Schedule one block that stands for itself."""
        loops = schedule.get_loops(block)
        kinds = [int(var.iter_type) for var in schedule.get(block).iter_vars]
        if not loops or len(kinds) != len(loops):
            return
        spatial = 0
        while spatial < len(kinds) and kinds[spatial] == tirx.IterVar.DataPar:
            spatial += 1
        if spatial == 0:
            return
        extents = [schedule.get(loop).extent for loop in loops]
        known = [int(extent) for extent in extents if isinstance(extent, tirx.IntImm)]
        size = 1
        for extent in known:
            size *= extent
        large = len(known) < len(extents) or size >= _PARALLEL_FROM
        only_spatial = spatial == len(loops)
        outer = loops[: spatial - 1] if only_spatial else loops[:spatial]
        if only_spatial:
            self._vectorize(schedule, loops[-1], extents[-1])
        if outer and large:
            schedule.parallel(schedule.fuse(*outer) if len(outer) > 1 else outer[0])

    def _vectorize(self, schedule: Any, loop: Any, extent: Any) -> None:
        if not isinstance(extent, tirx.IntImm):
            return
        lanes = self.lanes
        while lanes > 1 and int(extent) % lanes:
            lanes //= 2
        if lanes > 1:
            _, inner = schedule.split(loop, [None, lanes])
            schedule.vectorize(inner)


def _try_inline(schedule: Any, block: Any) -> None:
    """Inline a block whose result only element-wise consumers read."""
    try:
        schedule.compute_inline(block)
    except s_tir.ScheduleError:
        return
