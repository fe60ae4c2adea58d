"""``x @ w.T`` for many rows of activations on CPUs with matrix tiles (AMX), from codes in tiles.

The products are those of bfloat16 with float32 sums, ``tdpbf16ps``: 16 rows times 32 columns of the
activations with 32 times 16 of the weights, in 16 cycles. All else is about feeding them.

* Activations are rounded to bfloat16 once, into tiles in the order in which they are loaded
  (:func:`preparation`). All tiles have as many rows as divide them best, the last one begins early
  enough to end with the last row: there is no padding, and 17 rows take 18 rows' time, not 32's.
* Weights are unpacked by vector instructions while the matrix unit multiplies those before them: a
  chunk of :data:`DEPTH` tiles for each of two tiles of output columns lies in the first-level cache,
  the next one is unpacked beside it, tile by tile between the products, and the one after that is
  asked for from memory.
* A block of up to 128 rows meets each chunk while it lies there: in pairs of tiles, 2 by 2 products for
  4 loads. The block's part of 4096 input features stays in the second-level cache (1 MiB).

How weights are rounded is in :mod:`edgec.scheduling.kernels.cpu_amx_operands`, why it is bfloat16 and not
int8 in docs/decisions/0024-amx.md.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels import HAND_WRITTEN
from edgec.scheduling.kernels.cpu_amx_operands import (
    STEP,
    TILE,
    Weights,
    prefetch,
    preparation,
    tile_rows,
    weight_tiles,
)
from edgec.scheduling.kernels.linear import Linear, LinearKernel
from edgec.scheduling.kernels.vectors import broadcast, vector

DEPTH = 8
"""Steps of a chunk: two chunks for 32 outputs are 32 KiB, of the 48 KiB that are nearest to the core."""
PAIRS = 4
"""Pairs of tiles in a block of rows: what one unpacked chunk is used for."""
PANEL = 16
"""Chunks of input features whose activations stay in the second-level cache."""
_TASKS = 16
_MOST_BLOCKS = 8
# How many chunks the prefetch is ahead of unpacking.
_AHEAD = 2
_ROW_BYTES = 64
# The tiles' numbers: 2 x 2 sums, two of activations, two of weights.
_SUMS, _LEFT, _RIGHT = 0, 4, 6
_LANES = 16


@dataclass(frozen=True)
class AmxMatmul(Linear):
    """One kernel's parameters, for weights in tiles of 16 rows (``layouts.dot4``).

    Attributes:
        prefetch_rows: whether to ask for the activations of the next step before they are loaded.
    """

    prefetch_rows: bool = True

    @property
    def steps(self) -> int:
        """Tiles along the input features."""
        return self.k // STEP

    @property
    def chunks(self) -> int:
        """Chunks along the input features; the last one may be shorter."""
        return -(-self.steps // DEPTH)

    @property
    def weight_tiles(self) -> int:
        """Tiles along the output features."""
        return weight_tiles(self)

    @property
    def blocks(self) -> int:
        """Pairs of tiles along the output features."""
        return -(-self.weight_tiles // 2)

    @property
    def blocks_per_task(self) -> int:
        """So many that there is enough for 16 threads; more of them start less often from nothing."""
        return max(1, min(_MOST_BLOCKS, self.blocks // _TASKS))


def many_rows_kernel(linear: Linear) -> LinearKernel:
    """The kernel for any number of rows."""
    name = f"amx_{linear.name}"
    return LinearKernel(name, many_rows(AmxMatmul(**asdict(linear))), preparation(linear))


def many_rows(p: AmxMatmul) -> Any:
    """The PrimFunc ``(tiles, w, scales[, zeros], y (m, n))``; see :func:`preparation` for ``tiles``."""
    per_task = p.blocks_per_task
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            m, pairs = T.int64(), T.int64()
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, HAND_WRITTEN: True})
            x = T.arg("tiles", T.buffer((pairs, p.steps, 2, TILE, STEP), "uint16"))
            weights = Weights.arguments(p)
            y = T.arg("y", T.buffer((m, p.n), p.y_dtype))
            with T.sblock("root"):
                tiles, rows = (T.Bind(value) for value in tile_rows(m))
                all_pairs = T.Bind(T.ceildiv(tiles, 2))
                row_blocks = T.Bind(T.ceildiv(all_pairs, PAIRS))
                most = T.Bind(T.ceildiv(all_pairs, T.max(row_blocks, 1)))
                with (
                    T.serial(0, row_blocks) as row_block,
                    T.parallel(0, -(-p.blocks // per_task)) as task,
                    T.sblock("task"),
                ):
                    first = T.Bind(row_block * most)
                    rows_of = _Rows(m, tiles, rows, first, T.Bind(T.min(most, all_pairs - first)))
                    first_block = T.Bind(T.Cast("int64", task) * per_task)
                    count = T.Bind(T.min(p.blocks - first_block, per_task))
                    _Task(p, x, weights, y, rows_of).run(first_block, count)
        return builder.get()


@dataclass(frozen=True)
class _Rows:
    """A block of rows, and what all of them have in common.

    Attributes:
        m: rows in all.
        tiles: tiles in all.
        rows: of a tile.
        first: number of the block's first pair of tiles.
        pairs: of the block.
    """

    m: Any
    tiles: Any
    rows: Any
    first: Any
    pairs: Any


class _Place:
    """A chunk in the order in which a task works: panel by panel, block by block."""

    def __init__(self, p: AmxMatmul, first_block: Any, blocks: Any, index: Any) -> None:
        if p.chunks <= PANEL:
            self.local, self.chunk = T.Bind(index // p.chunks), T.Bind(index % p.chunks)
        else:
            panel = T.Bind(index // (blocks * PANEL))
            inside = T.Bind(index - panel * (blocks * PANEL))
            width = T.Bind(T.min(p.chunks - panel * PANEL, PANEL))
            self.local, self.chunk = T.Bind(inside // width), T.Bind(panel * PANEL + inside % width)
        self.block = T.Bind(first_block + self.local)
        self.steps = T.Bind(T.min(p.steps - self.chunk * DEPTH, DEPTH))


class _Task:
    """The products of a block of rows with some blocks of output features."""

    def __init__(self, p: AmxMatmul, x: Any, weights: Weights, y: Any, rows: _Rows) -> None:
        self._p, self._x, self._y, self._rows = p, x, y, rows
        self._weights = weights
        self._config = T.sblock_alloc_buffer((_ROW_BYTES,), "uint8")
        self._unpacked = T.sblock_alloc_buffer((2, DEPTH, 2, TILE, TILE), "uint32")
        self._sums = T.sblock_alloc_buffer((p.blocks_per_task, PAIRS, 2, 2, TILE, TILE), "float32")
        self._done = T.sblock_alloc_buffer((1,), "int64")

    def run(self, first_block: Any, blocks: Any) -> None:
        """Blocks ``first_block, ...``."""
        self._configure()
        total = T.Bind(blocks * self._p.chunks)
        place = _Place(self._p, first_block, blocks, T.int64(0))
        with T.serial(T.int64(0), place.steps * 2) as unit:
            self._unpack(place, place, 0, unit)
        with T.serial(T.int64(0), total) as index:
            now = _Place(self._p, first_block, blocks, index)
            coming = _Place(self._p, first_block, blocks, T.min(index + 1, total - 1))
            later = _Place(self._p, first_block, blocks, T.min(index + 1 + _AHEAD, total - 1))
            units = T.Bind(T.Select(index + 1 < total, coming.steps * 2, T.int64(0)))
            self._chunk(now, coming, later, index % 2, units)
            with T.If(now.chunk == self._p.chunks - 1), T.Then():
                self._write(now)
        _tile("tilerelease")

    def _configure(self) -> None:
        """Tiles of 64 bytes a row; all 16 rows for weights, and for the rest as many as there are."""
        rows = T.Cast("uint8", self._rows.rows)
        T.buffer_store(self._config, broadcast(T.uint8(0), _ROW_BYTES), [T.ramp(0, 1, _ROW_BYTES)])
        T.buffer_store(self._config, T.uint8(1), [0])
        for tile in range(8):
            T.buffer_store(self._config, T.uint8(_ROW_BYTES), [16 + 2 * tile])
            T.buffer_store(self._config, rows if tile < _RIGHT else T.uint8(TILE), [48 + tile])
        _tile("ldtilecfg", T.address_of(self._config[0]))

    def _chunk(self, now: _Place, coming: _Place, later: _Place, buffer: Any, units: Any) -> None:
        """Multiply a chunk, and unpack ``units`` tiles of the one that comes into the other buffer."""
        rows = self._rows
        T.buffer_store(self._done, T.int64(0), [0])
        # Tiles to unpack for each step, in 65536ths, rounded up so that none is left.
        pace = T.Bind(T.ceildiv(units * 65536, rows.pairs * now.steps))

        def unpack(step: Any) -> None:
            share = T.shift_right((step + 1) * pace, T.int64(16))
            due = T.Bind(T.min(units, share))
            with T.serial(T.int64(0), due - self._done[0]) as more:
                self._unpack(coming, later, 1 - buffer, self._done[0] + more)
            T.buffer_store(self._done, due, [0])

        with T.serial(0, rows.pairs) as pair:
            row_pair = T.Bind(rows.first + pair)
            both = T.Bind(row_pair * 2 + 1 < rows.tiles)
            self._begin(now, pair, both)
            with T.serial(T.int64(0), now.steps) as t:
                unpack(pair * now.steps + t)
                step = T.Bind(now.chunk * DEPTH + t)
                columns = [T.address_of(self._unpacked[buffer, t, j, 0, 0]) for j in range(2)]
                _move("tileloadd64", _RIGHT, columns[0])
                self._load_rows(row_pair, step, 0)
                _move("tileloadd64", _RIGHT + 1, columns[1])
                _multiply(0)
                with T.If(both), T.Then():
                    self._load_rows(row_pair, step, 1)
                    _multiply(1)
            for i, once in enumerate((True, both)):
                with T.If(once), T.Then():
                    for number, place in self._places(now, pair, i):
                        _move("tilestored64", number, place)

    def _begin(self, now: _Place, pair: Any, both: Any) -> None:
        """Load the sums of a pair of tiles of rows, or clear them."""
        for i, once in enumerate((True, both)):
            with T.If(once), T.Then(), T.If(now.chunk == 0):
                with T.Then():
                    for number, _ in self._places(now, pair, i):
                        _tile("tilezero", T.int8(number))
                with T.Else():
                    for number, place in self._places(now, pair, i):
                        _move("tileloadd64", number, place)

    def _places(self, now: _Place, pair: Any, i: int) -> list[tuple[int, Any]]:
        """The tiles with the sums of the pair's tile ``i``, and where they lie in memory."""
        return [
            (_SUMS + 2 * i + j, T.address_of(self._sums[now.local, pair, i, j, 0, 0]))
            for j in range(2)
        ]

    def _load_rows(self, row_pair: Any, step: Any, i: int) -> None:
        """Load a tile of activations, and ask for the same of the next step.

        That follows in memory; where a chunk ends, another pair comes first.
        """
        if self._p.prefetch_rows:
            for row in range(TILE):
                prefetch(self._x[row_pair, step + 1, i, row, 0])
        _move("tileloadd64", _LEFT + i, T.address_of(self._x[row_pair, step, i, 0, 0]))

    def _unpack(self, place: _Place, later: _Place, buffer: Any, unit: Any) -> None:
        """Tile ``unit`` of a chunk: of one step, for one of the two tiles of columns."""
        t, half = T.Bind(unit // 2), T.Bind(unit % 2)
        ahead = self._column(later.block, half)
        self._weights.prefetch(ahead, later.chunk * DEPTH + t)
        tile = self._column(place.block, half)
        for row, pair in enumerate(self._weights.pairs(tile, T.Bind(place.chunk * DEPTH + t))):
            T.buffer_store(self._unpacked, pair, [buffer, t, half, row, T.ramp(0, 1, _LANES)])

    def _column(self, block: Any, half: Any) -> Any:
        """Number of a tile of weights; an odd last one stands in for its missing neighbour."""
        tile = block * 2 + half
        return T.Bind(T.min(tile, self._p.weight_tiles - 1) if self._p.weight_tiles % 2 else tile)

    def _write(self, now: _Place) -> None:
        """Round the sums of a block to the result."""
        p, rows = self._p, self._rows
        with T.serial(0, rows.pairs) as pair, T.serial(0, 2) as i:
            tile = T.Bind((rows.first + pair) * 2 + i)
            start = T.Bind(T.min(tile * rows.rows, rows.m - rows.rows))
            with T.serial(0, T.Select(tile < rows.tiles, rows.rows, T.int64(0))) as r:
                for j in range(2):
                    column = T.Bind(now.block * 2 + j)
                    place = [now.local, pair, i, j, r]
                    with T.If((column + 1) * TILE <= p.n):
                        with T.Then():
                            sums = self._sums[(*place, T.ramp(0, 1, _LANES))]
                            T.buffer_store(
                                self._y,
                                T.Cast(vector(p.y_dtype, _LANES), sums),
                                [start + r, T.ramp(column * TILE, 1, _LANES)],
                            )
                        with (
                            T.Else(),
                            T.serial(0, T.max(p.n - column * TILE, 0)) as lane,
                        ):
                            value = T.Cast(p.y_dtype, self._sums[(*place, lane)])
                            T.buffer_store(self._y, value, [start + r, column * TILE + lane])


def _tile(name: str, *operands: Any) -> None:
    T.evaluate(T.call_llvm_intrin("void", f"llvm.x86.{name}", *operands))


def _move(name: str, tile: int, place: Any) -> None:
    """A tile and memory where its rows follow each other."""
    _tile(name, T.int8(tile), place, T.int64(_ROW_BYTES))


def _multiply(i: int) -> None:
    """The pair's tile ``i`` with both tiles of columns."""
    for j in range(2):
        operands = (_SUMS + 2 * i + j, _LEFT + i, _RIGHT + j)
        _tile("tdpbf16ps", *(T.int8(operand) for operand in operands))
