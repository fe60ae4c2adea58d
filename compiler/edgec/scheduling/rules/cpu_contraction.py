"""The CPU schedule of convolutions, products of activations and pooling.

All are sums (or maxima) whose results lie side by side along one axis, the channels or the columns,
and whose terms do too. A tile of results stays in vector registers while everything is added up that
belongs to it: some neighbours along the axis before (pixels of a row, rows of a matrix) times some
vectors of the last axis. Tiles are spread over the threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import s_tir, tirx
from tvm.s_tir.dlight.base import ScheduleRule

from edgec.scheduling.rules.cpu import CPUElementwise

_DATA = tirx.IterVar.DataPar
_VARYING = (6, 2)
"""Rows and vectors of a tile along axes whose size varies; they are padded to whole tiles."""


@dataclass(frozen=True)
class Tile:
    """How many results are computed side by side.

    Attributes:
        rows: neighbours along the axis before the last.
        vectors: of the last axis.
        lanes: of a vector.
    """

    rows: int
    vectors: int
    lanes: int

    @property
    def columns(self) -> int:
        """Neighbours along the last axis."""
        return self.vectors * self.lanes

    @property
    def reuse(self) -> float:
        """Multiplications for each operand that is loaded."""
        return self.lanes * self.rows * self.vectors / (self.rows + self.vectors)


class CPUContraction(ScheduleRule):  # type: ignore[misc]
    """Register tiles for reductions whose last axis isn't reduced.

    Args:
        vector_bits: width of the CPU's registers.
    """

    def __init__(self, vector_bits: int) -> None:
        self._lanes = vector_bits // 32
        # There are 32 registers of 512 bits, 16 of fewer; operands need some.
        self._accumulators = 24 if vector_bits >= 512 else 12
        self._elementwise = CPUElementwise(vector_bits)

    def apply(self, func: tirx.PrimFunc, _target: Any, _tunable: bool) -> Any:
        """Schedule one function, or return None to leave it to another rule."""
        if not isinstance(func, tirx.PrimFunc) or func.attrs.get("tirx.is_scheduled"):
            return None
        schedule = s_tir.Schedule(func)
        blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
        reductions = [block for block in blocks if _reduces(schedule.get(block))]
        if len(reductions) != 1 or not _side_by_side(schedule.get(reductions[0])):
            return None
        main = reductions[0]
        name = str(schedule.get(main).name_hint)
        padded = self._needs_padding(schedule, main)
        if padded:
            schedule.pad_einsum(main, self._padding(schedule, main))
        elif self._sizes(schedule, main)[1] is None:
            return None
        self._tile(schedule, main, padded=padded)
        for block in schedule.get_child_blocks(schedule.get_sblock("root")):
            if name not in str(schedule.get(block).name_hint):
                self._elementwise.schedule_block(schedule, block)
        return schedule

    def _needs_padding(self, schedule: Any, main: Any) -> bool:
        """Whether it is a plain product, the only form that can be padded, with uneven sizes."""
        block = schedule.get(main)
        if not _is_product(block):
            return False
        rows, columns = self._sizes(schedule, main)
        uneven = columns is None or columns % self._lanes != 0
        return uneven or rows is None or (rows > 1 and self._best(rows, columns).rows < 4)

    def _padding(self, schedule: Any, main: Any) -> list[int]:
        rows, columns = self._sizes(schedule, main)
        kinds = _kinds(schedule.get(main))
        last = max(index for index, kind in enumerate(kinds) if kind == _DATA)
        padding = [1] * len(kinds)
        if columns is None or columns % self._lanes:
            padding[last] = self._lanes * (_VARYING[1] if columns is None else 1)
        if last and (rows is None or rows > 1):
            padding[last - 1] = _VARYING[0]
        return padding

    def _sizes(self, schedule: Any, main: Any) -> tuple[int | None, int | None]:
        """Rows and columns of the results; None where they vary."""
        loops = schedule.get_loops(main)
        kinds = _kinds(schedule.get(main))
        extents = [
            int(extent) if isinstance(extent := schedule.get(loop).extent, tirx.IntImm) else None
            for loop, kind in zip(loops, kinds, strict=True)
            if kind == _DATA
        ]
        return (extents[-2] if len(extents) > 1 else 1), extents[-1]

    def _best(self, rows: int | None, columns: int | None, *, padded: bool = False) -> Tile:
        """The tile of whole parts with the most reuse.

        Sizes that vary are padded to whole parts of one kind, or taken one by one.
        """
        lanes = self._lanes
        while columns is not None and lanes > 1 and columns % lanes:
            lanes //= 2
        tiles = [
            Tile(height, vectors, lanes)
            for vectors in (1, 2, 3, 4)
            for height in range(1, self._accumulators + 1)
            if height * vectors <= self._accumulators
            and (rows or (_VARYING[0] if padded else 1)) % height == 0
            and (_VARYING[1] if columns is None else columns // lanes) % vectors == 0
        ]
        return max(tiles, key=lambda tile: tile.reuse)

    def _tile(self, schedule: Any, main: Any, *, padded: bool) -> None:
        # What is padded is copied to its own size already. The condition that this copy has would be
        # lost if it were inlined into another one.
        copy = (
            schedule.get_consumers(main)[0] if padded else schedule.cache_write(main, 0, "global")
        )
        # What follows element by element happens as results leave the registers.
        while consumers := list(schedule.get_consumers(copy)):
            if len(consumers) > 1 or not _try(schedule.reverse_compute_inline, consumers[0]):
                break
        loops, kinds = schedule.get_loops(main), _kinds(schedule.get(main))
        spatial = [loop for loop, kind in zip(loops, kinds, strict=True) if kind == _DATA]
        reduced = [loop for loop, kind in zip(loops, kinds, strict=True) if kind != _DATA]
        tile = self._best(*self._sizes(schedule, main), padded=padded)
        columns, inner_columns = schedule.split(spatial[-1], [None, tile.columns])
        inner, outer = [inner_columns], [columns, *spatial[:-1]]
        if len(spatial) > 1:
            rows, inner_rows = schedule.split(spatial[-2], [None, tile.rows])
            inner, outer = [inner_rows, inner_columns], [columns, *spatial[:-2], rows]
        schedule.reorder(*outer, *reduced, *inner)
        tiles = schedule.fuse(*outer) if len(outer) > 1 else outer[0]
        schedule.reverse_compute_at(copy, tiles, preserve_unit_loops=True)
        schedule.parallel(tiles)
        self._vectorize(schedule, main, tile)
        if not padded:
            self._vectorize(schedule, copy, tile)
        schedule.decompose_reduction(main, reduced[0])

    def _vectorize(self, schedule: Any, block: Any, tile: Tile) -> None:
        """Unroll the tile, so that its results are known registers, and vectorize its columns."""
        loops = schedule.get_loops(block)
        vectors, lanes = schedule.split(loops[-1], [None, tile.lanes])
        if tile.rows > 1:
            schedule.unroll(loops[-2])
        schedule.unroll(vectors)
        if tile.lanes > 1:
            schedule.vectorize(lanes)


def _reduces(block: Any) -> bool:
    return any(kind != _DATA for kind in _kinds(block)) and block.init is not None


def _kinds(block: Any) -> list[int]:
    return [int(var.iter_type) for var in block.iter_vars]


def _side_by_side(block: Any) -> bool:
    """Whether neighbouring results read neighbouring operands, or the same."""
    kinds = _kinds(block)
    count = kinds.count(_DATA)
    if not count or any(kind != _DATA for kind in kinds[:count]):
        return False
    last = block.iter_vars[count - 1].var
    written = block.writes[0].region[-1].min
    if len(block.writes) != 1 or not written.same_as(last):
        return False
    contiguous = False
    for read in block.reads:
        *before, index = [part.min for part in read.region]
        if any(_mentions(part, last) for part in before):
            return False
        if index.same_as(last):
            contiguous = True
        elif _mentions(index, last):
            return False
    return contiguous


def _mentions(expr: Any, var: Any) -> bool:
    return any(found.same_as(var) for found in tirx.analysis.undefined_vars(expr))


def _is_product(block: Any) -> bool:
    """Whether it is a sum of products, each index one of the block's variables or a number."""
    if len(block.reads) < 2:
        return False
    variables = [item.var for item in block.iter_vars]
    return all(
        isinstance(part.min, tirx.IntImm) or any(part.min.same_as(var) for var in variables)
        for access in (*block.reads, *block.writes)
        for part in access.region
    )


def _try(step: Any, *arguments: Any) -> bool:
    try:
        step(*arguments)
    except s_tir.ScheduleError:
        return False
    return True
