"""Sorting rows of probabilities on GPUs: merge sort, largest first, equal entries in their order.

The first kernel sorts tiles in shared memory. Every further one merges neighbouring runs into runs
of twice the width, each work-group one tile of the result. Where a tile's inputs begin is found by
a binary search along the merge path (Green, McColl, Bader: "GPU Merge Path", 2012), so work-groups
need nothing of each other, and no atomics. A row of 128k entries takes seven kernels, each of which
reads and writes the row once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.gpu_work_group import (
    Limits,
    Memory,
    barrier,
    keep,
    kernel_attributes,
    launch,
    power_of_two,
    registers,
    shared,
    when,
)

_LANES = 256
_PER_LANE = 8
_ENTRY_BYTES = 8
_BELOW_ALL = -3.4028234663852886e38


@dataclass(frozen=True)
class Sort:
    """A sort of rows with ``vocab`` entries.

    Attributes:
        vocab: entries of a row.
        lanes: of a work-group, a power of two.
        per_lane: entries that a lane merges, a power of two.
    """

    vocab: int
    lanes: int
    per_lane: int

    @classmethod
    def within(cls, vocab: int, limits: Limits) -> Sort:
        """Tiles as large as fit twice into shared memory, so that two work-groups share a core."""
        entries = power_of_two(limits.shared_memory_bytes // (2 * _ENTRY_BYTES))
        lanes = min(limits.lanes(_LANES), entries)
        return cls(vocab, lanes, min(_PER_LANE, entries // lanes))

    @property
    def tile(self) -> int:
        """Entries of a work-group."""
        return self.lanes * self.per_lane

    @property
    def tiles(self) -> int:
        """Work-groups of a row."""
        return -(-self.vocab // self.tile)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of the runs that each merging kernel finds."""
        widths = []
        width = self.tile
        while width < self.vocab:
            widths.append(width)
            width *= 2
        return tuple(widths)


def sort_tiles(sort: Sort) -> Any:
    """``(probs (n, v), sorted (n, v), indices int32 (n, v))``: every tile of a row sorted."""
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            n = T.int32()
            probs = T.arg("probs", T.buffer((n, sort.vocab), "float32"))
            entries = _Entries.arguments("sorted", "indices", n, sort.vocab)
            with launch(sort.lanes, sort.tiles, n) as (lane, group, row):
                tile = _Tile(sort, lane)
                first = group * sort.tile
                for i in range(sort.per_lane):
                    place = i * sort.lanes + lane
                    tile.values[place] = T.float32(_BELOW_ALL)
                    tile.indices[place] = first + place
                    with when(first + place < sort.vocab):
                        value = keep(probs[row, first + place], "float32")
                        # What isn't a number has no order, but mustn't leave the row.
                        with when(value >= T.float32(_BELOW_ALL)):
                            tile.values[place] = value
                barrier()
                tile.sort_own()
                with T.serial(0, sort.lanes.bit_length() - 1) as step:
                    run = keep(T.shift_left(T.int32(sort.per_lane), step))
                    own = lane * sort.per_lane
                    pair = keep(_round_down(own, run * 2))
                    tile.merge(pair, run, pair + run, run, own - pair)
                    tile.put_own()
                for i in range(sort.per_lane):
                    place = i * sort.lanes + lane
                    with when(first + place < sort.vocab):
                        entries.set(row, first + place, tile.values[place], tile.indices[place])
        return builder.get()


def merge_runs(sort: Sort) -> Any:
    """``(sorted, indices, width int32, merged, merged_indices)``, all but the width ``(n, v)``.

    Neighbouring sorted runs of ``width`` entries are merged; ``width`` is a tile's width times a
    power of two.
    """
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            n = T.int32()
            runs = _Entries.arguments("sorted", "indices", n, sort.vocab)
            width = T.arg("width", T.int32())
            merged = _Entries.arguments("merged", "merged_indices", n, sort.vocab)
            with launch(sort.lanes, sort.tiles, n) as (lane, group, row):
                tile = _Tile(sort, lane)
                split = shared(2, "int32")
                # A pair of runs: left from `pair`, right from `pair + width`, as far as they exist.
                first = group * sort.tile
                pair = keep(_round_down(first, width * 2))
                left = keep(T.min(width, sort.vocab - pair))
                right = keep(T.min(width, sort.vocab - pair - left))
                begin = keep(first - pair)
                end = keep(T.min(begin + sort.tile, left + right))
                with when(lane < 2):
                    path = keep(T.if_then_else(lane == 0, begin, end))
                    split[lane] = _crossing(
                        lambda i: runs.values[row, pair + i],
                        lambda j: runs.values[row, pair + left + j],
                        left,
                        right,
                        path,
                    )
                barrier()
                from_left = keep(split[1] - split[0])
                count = keep(end - begin)
                left_start = keep(pair + split[0])
                # Where the first entry from the right run would stand, were it the tile's first.
                right_start = keep(pair + left + begin - split[0] - from_left)
                for i in range(sort.per_lane):
                    place = i * sort.lanes + lane
                    with when(place < count):
                        start = T.if_then_else(place < from_left, left_start, right_start)
                        source = keep(start + place)
                        tile.values[place] = runs.values[row, source]
                        tile.indices[place] = runs.indices[row, source]
                barrier()
                path = keep(T.min(lane * sort.per_lane, count))
                tile.merge(T.int32(0), from_left, from_left, count - from_left, path)
                tile.put_own()
                for i in range(sort.per_lane):
                    place = i * sort.lanes + lane
                    with when(place < count):
                        merged.set(row, first + place, tile.values[place], tile.indices[place])
        return builder.get()


@dataclass(frozen=True)
class _Entries:
    """Rows of values and the indices that they had before the sort, in global memory."""

    values: Memory
    indices: Memory

    @classmethod
    def arguments(cls, values: str, indices: str, n: Any, vocab: int) -> _Entries:
        return cls(
            Memory(T.arg(values, T.buffer((n, vocab), "float32"))),
            Memory(T.arg(indices, T.buffer((n, vocab), "int32"))),
        )

    def set(self, row: Any, place: Any, value: Any, index: Any) -> None:
        self.values[row, place] = value
        self.indices[row, place] = index


class _Tile:
    """Entries in shared memory, of which each lane owns ``per_lane`` neighbours."""

    def __init__(self, sort: Sort, lane: Any) -> None:
        self._sort = sort
        self._lane = lane
        self.values = shared(sort.tile)
        self.indices = shared(sort.tile, "int32")
        self._own_values = registers(sort.per_lane)
        self._own_indices = registers(sort.per_lane, "int32")

    def sort_own(self) -> None:
        """Sort the lane's entries by exchanging neighbours, and let all lanes see them."""
        sort, values, indices = self._sort, self._own_values, self._own_indices
        for i in range(sort.per_lane):
            values[i] = self.values[self._lane * sort.per_lane + i]
            indices[i] = self.indices[self._lane * sort.per_lane + i]
        value, index = registers(1), registers(1, "int32")
        for step in range(sort.per_lane):
            for i in range(step % 2, sort.per_lane - 1, 2):
                with when(values[i] < values[i + 1]):
                    value[0], index[0] = values[i], indices[i]
                    values[i], indices[i] = values[i + 1], indices[i + 1]
                    values[i + 1], indices[i + 1] = value[0], index[0]
        self.put_own()

    def put_own(self) -> None:
        """Write what the lane merged, once no lane reads any more, and let all lanes see it."""
        barrier()
        for i in range(self._sort.per_lane):
            self.values[self._lane * self._sort.per_lane + i] = self._own_values[i]
            self.indices[self._lane * self._sort.per_lane + i] = self._own_indices[i]
        barrier()

    def merge(self, left: Any, lefts: Any, right: Any, rights: Any, path: Any) -> None:
        """Take ``per_lane`` entries from ``path`` on of two merged runs of the tile.

        The runs are ``lefts`` entries from ``left`` on and ``rights`` from ``right`` on.
        """
        last = self._sort.tile - 1
        crossing = _crossing(
            lambda i: self.values[left + i],
            lambda j: self.values[right + j],
            lefts,
            rights,
            path,
        )
        i, j = registers(1, "int32"), registers(1, "int32")
        i[0] = crossing
        j[0] = path - crossing
        heads = registers(2)
        source = registers(1, "int32")
        for step in range(self._sort.per_lane):
            # Past the end of a run, what is read isn't used.
            heads[0] = self.values[T.min(left + i[0], last)]
            heads[1] = self.values[T.min(right + j[0], last)]
            goes_left = T.Or(j[0] >= rights, T.And(i[0] < lefts, heads[0] >= heads[1]))
            with T.If(goes_left):
                with T.Then():
                    self._own_values[step] = heads[0]
                    source[0] = left + i[0]
                    i[0] = i[0] + 1
                with T.Else():
                    self._own_values[step] = heads[1]
                    source[0] = right + j[0]
                    j[0] = j[0] + 1
            self._own_indices[step] = self.indices[T.min(source[0], last)]


def _round_down(value: Any, power: Any) -> Any:
    """The greatest multiple of a power of two that isn't greater."""
    return T.bitwise_and(value, T.int32(0) - power)


def _crossing(left: Any, right: Any, lefts: Any, rights: Any, path: Any) -> Any:
    """How many of the first ``path`` entries of two merged runs come from the left one."""
    low, high = registers(1, "int32"), registers(1, "int32")
    low[0] = T.max(path - rights, 0)
    high[0] = T.min(path, lefts)
    heads = registers(2)
    with T.While(low[0] < high[0]):
        middle = keep(T.shift_right(low[0] + high[0], 1))
        heads[0] = left(middle)
        heads[1] = right(path - 1 - middle)
        # Of equal entries the left one goes first.
        with T.If(heads[0] >= heads[1]):
            with T.Then():
                low[0] = middle + 1
            with T.Else():
                high[0] = middle
    return low[0]
