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

A weight ``(u - z) * s`` is computed in float32, made greater by a 384th and cut off to bfloat16. That
is as good as rounding to the nearest to a few per cent (at most 0.7 of the last bit's place, on
average 0.31 in place of 0.29, without a drift) and takes half as many instructions.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels import HAND_WRITTEN
from edgec.scheduling.kernels.linear import Linear, LinearKernel, Preparation
from edgec.scheduling.kernels.vectors import broadcast, vector

if TYPE_CHECKING:
    from collections.abc import Callable

TILE = 16
"""Rows of a tile, of activations and of weights."""
STEP = 32
"""Input features of a tile: 64 bytes of bfloat16."""
DEPTH = 8
"""Steps of a chunk: two chunks for 32 outputs are 32 KiB, of the 48 KiB that are nearest to the core."""
PAIRS = 4
"""Pairs of tiles in a block of rows: what one unpacked chunk is used for."""
PANEL = 16
"""Chunks of input features whose activations stay in the second-level cache."""
SCALE = 1 + 1 / 384
"""Makes up for cutting off. In units of the last place u, a magnitude t in [1, 2) loses u/2 on average, and
the weights' squares t**2 lose nothing together if each gains t * u * E(t) / (2 * E(t**2)) = t * u / 3,
where u = 2**-7 and t is as frequent as 1/t."""

_TASKS = 16
_MOST_BLOCKS = 8
# How many chunks the prefetch is ahead of unpacking.
_AHEAD = 2
_TILE_BYTES, _ROW_BYTES = 1024, 64
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
        return -(-self.n // TILE)

    @property
    def blocks(self) -> int:
        """Pairs of tiles along the output features."""
        return -(-self.weight_tiles // 2)

    @property
    def blocks_per_task(self) -> int:
        """So many that there is enough for 16 threads; more of them start less often from nothing."""
        return max(1, min(_MOST_BLOCKS, self.blocks // _TASKS))


def preparation(linear: Linear) -> Preparation:
    """The activations as bfloat16 in tiles.

    The output is ``(pairs, k / 32, 2, 16, 32)``, bits of bfloat16 as uint16: for each pair of tiles of
    rows and each 32 columns the two tiles. A tile has :func:`tile_rows` rows; the rest isn't written.
    """

    def outputs(rows: Any) -> list[tuple[tuple[Any, ...], str]]:
        return [(((rows + 31) // 32, linear.k // STEP, 2, TILE, STEP), "uint16")]

    name = f"tiles_{linear.x_dtype}_{linear.k}"
    return Preparation(name, _prepare(linear.k, linear.x_dtype), outputs)


def many_rows_kernel(linear: Linear) -> LinearKernel:
    """The kernel for any number of rows."""
    name = f"amx_{linear.name}"
    return LinearKernel(name, many_rows(AmxMatmul(**asdict(linear))), preparation(linear))


def tile_rows(m: Any) -> tuple[Any, Any]:
    """How many tiles ``m`` rows are cut into, and the rows of each.

    Tile ``t`` begins at row ``min(t * rows, m - rows)``.
    """
    tiles = T.ceildiv(m, TILE)
    return tiles, T.ceildiv(m, tiles)


def _prepare(k: int, x_dtype: str) -> Any:
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            m, pairs = T.int64(), T.int64()
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, HAND_WRITTEN: True})
            x = T.arg("x", T.buffer((m, k), x_dtype))
            out = T.arg("tiles", T.buffer((pairs, k // STEP, 2, TILE, STEP), "uint16"))
            with T.sblock("root"):
                tiles, rows = (T.Bind(value) for value in tile_rows(m))
                with T.parallel(0, tiles * rows) as index, T.sblock("row"):
                    tile, row = T.Bind(index // rows), T.Bind(index % rows)
                    source = T.Bind(T.min(tile * rows, m - rows) + row)
                    with T.serial(0, k // STEP) as step:
                        for half in range(2):
                            first = step * STEP + half * _LANES
                            values = x[source, T.ramp(first, 1, _LANES)]
                            T.buffer_store(
                                out,
                                _rounded(T.Cast(vector("float32", _LANES), values)),
                                [tile // 2, step, tile % 2, row, T.ramp(half * _LANES, 1, _LANES)],
                            )
        return builder.get()


def _rounded(values: Any) -> Any:
    """Bits of the nearest bfloat16, ties to even."""
    bits = T.Bind(T.reinterpret(vector("uint32", _LANES), values))
    odd = T.bitwise_and(_shifted(bits, 16), _words(1))
    return T.Cast(vector("uint16", _LANES), _shifted(bits + odd + _words(0x7FFF), 16))


def _halves(low: Any, high: Any) -> Any:
    """The lower 16 bits of each word from ``low`` and the upper ones from ``high``.

    The instruction is named, because LLVM makes a permutation of the usual expression, which takes
    three times as long.
    """
    choose = T.int32(0xCA)  # bits of the second where the first has ones, else of the third
    return T.call_llvm_pure_intrin(
        vector("uint32", _LANES),
        "llvm.x86.avx512.pternlog.d.512",
        _words(0xFFFF0000),
        high,
        low,
        choose,
    )


def _words(value: int) -> Any:
    return broadcast(T.uint32(value), _LANES)


def _shifted(bits: Any, count: int) -> Any:
    return T.shift_right(bits, _words(count)) if count else bits


def many_rows(p: AmxMatmul) -> Any:
    """The PrimFunc ``(tiles, w, scales[, zeros], y (m, n))``; see :func:`preparation` for ``tiles``."""
    per_task = p.blocks_per_task
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            m, pairs = T.int64(), T.int64()
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, HAND_WRITTEN: True})
            x = T.arg("tiles", T.buffer((pairs, p.steps, 2, TILE, STEP), "uint16"))
            weights = _Weights.arguments(p)
            y = T.arg("y", T.buffer((m, p.n), p.y_dtype))
            with T.sblock("root"):
                tiles, rows = (T.Bind(value) for value in tile_rows(m))
                all_pairs = T.Bind(T.ceildiv(tiles, 2))
                row_blocks = T.Bind(T.ceildiv(all_pairs, PAIRS))
                most = T.Bind(T.ceildiv(all_pairs, row_blocks))
                with (
                    T.serial(0, row_blocks) as row_block,
                    T.parallel(0, -(-p.blocks // per_task)) as task,
                    T.sblock("task"),
                ):
                    first = T.Bind(row_block * most)
                    rows_of = _Rows(m, tiles, rows, first, T.Bind(T.min(most, all_pairs - first)))
                    first_block = T.Bind(task * per_task)
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

    def __init__(self, p: AmxMatmul, x: Any, weights: _Weights, y: Any, rows: _Rows) -> None:
        self._p, self._x, self._y, self._rows = p, x, y, rows
        self._weights = weights
        self._config = T.sblock_alloc_buffer((_ROW_BYTES,), "uint8")
        self._unpacked = T.sblock_alloc_buffer((2, DEPTH, 2, TILE, TILE), "uint32")
        self._sums = T.sblock_alloc_buffer((p.blocks_per_task, PAIRS, 2, 2, TILE, TILE), "float32")
        self._done = T.sblock_alloc_buffer((1,), "int32", scope="local")

    def run(self, first_block: Any, blocks: Any) -> None:
        """Blocks ``first_block, ...``."""
        self._configure()
        total = T.Bind(blocks * self._p.chunks)
        place = _Place(self._p, first_block, blocks, 0)
        with T.serial(0, place.steps * 2) as unit:
            self._unpack(place, place, 0, unit)
        with T.serial(0, total) as index:
            now = _Place(self._p, first_block, blocks, index)
            coming = _Place(self._p, first_block, blocks, T.min(index + 1, total - 1))
            later = _Place(self._p, first_block, blocks, T.min(index + 1 + _AHEAD, total - 1))
            units = T.Bind(T.Select(index + 1 < total, coming.steps * 2, 0))
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
        T.buffer_store(self._done, T.int32(0), [0])
        # Tiles to unpack for each step, in 65536ths, rounded up so that none is left.
        pace = T.Bind(T.ceildiv(T.Cast("int64", units) * 65536, rows.pairs * now.steps))

        def unpack(step: Any) -> None:
            share = T.shift_right((step + 1) * pace, T.int64(16))
            due = T.Bind(T.Cast("int32", T.min(T.Cast("int64", units), share)))
            with T.serial(0, due - self._done[0]) as more:
                self._unpack(coming, later, 1 - buffer, self._done[0] + more)
            T.buffer_store(self._done, due, [0])

        with T.serial(0, rows.pairs) as pair:
            tile = T.Bind((rows.first + pair) * 2)
            with T.If(tile + 1 < rows.tiles):
                with T.Then():
                    self._products(now, buffer, pair, 2, unpack)
                with T.Else():
                    self._products(now, buffer, pair, 1, unpack)

    def _products(
        self, now: _Place, buffer: Any, pair: Any, tall: int, unpack: Callable[[Any], None]
    ) -> None:
        """One or two tiles of rows with the chunk's two tiles of columns."""
        sums = [(2 * i + j, i, j) for i in range(tall) for j in range(2)]
        places = {
            number: T.address_of(self._sums[now.local, pair, i, j, 0, 0]) for number, i, j in sums
        }
        with T.If(now.chunk == 0):
            with T.Then():
                for number, _, _ in sums:
                    _tile("tilezero", T.int8(_SUMS + number))
            with T.Else():
                for number, _, _ in sums:
                    _move("tileloadd64", _SUMS + number, places[number])
        row_pair = T.Bind(self._rows.first + pair)
        with T.serial(0, now.steps) as t:
            unpack(pair * now.steps + t)
            step = T.Bind(now.chunk * DEPTH + t)
            if self._p.prefetch_rows:
                # They follow these in memory. Where a chunk ends, another pair comes first.
                for line in range(TILE * tall):
                    _prefetch(self._x[row_pair, step + 1, line // TILE, line % TILE, 0])
            for i in range(2):
                _move("tileloadd64", _RIGHT + i, T.address_of(self._unpacked[buffer, t, i, 0, 0]))
                if i < tall:
                    place = T.address_of(self._x[row_pair, step, i, 0, 0])
                    _move("tileloadd64", _LEFT + i, place)
            for number, i, j in sums:
                operands = (_SUMS + number, _LEFT + i, _RIGHT + j)
                _tile("tdpbf16ps", *(T.int8(operand) for operand in operands))
        for number, _, _ in sums:
            _move("tilestored64", _SUMS + number, places[number])

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


class _Weights:
    """Weights in tiles of 16 rows, as ``layouts.dot4`` stores them."""

    def __init__(self, p: AmxMatmul, w: Any, scales: Any, zeros: Any) -> None:
        self._p, self._w, self._scales, self._zeros = p, w, scales, zeros

    @classmethod
    def arguments(cls, p: AmxMatmul) -> _Weights:
        """Declare the arguments that hold them."""
        tiles, groups = p.weight_tiles, p.k // p.group
        w = T.arg("w", T.buffer((tiles, p.k // p.codes_per_word, TILE), "uint32"))
        scales = T.arg("scales", T.buffer((tiles, groups, TILE), p.scale_dtype))
        words = TILE // p.codes_per_word
        zeros = T.arg("zeros", T.buffer((tiles, groups, words), "uint32")) if p.zeros else None
        return cls(p, w, scales, zeros)

    def prefetch(self, tile: Any, step: Any) -> None:
        """Ask for what :meth:`pairs` reads."""
        vectors = STEP // self._p.codes_per_word
        for index in range(vectors):
            _prefetch(self._w[tile, step * vectors + index, 0])
        _prefetch(self._scales[tile, step * STEP // self._p.group, 0])

    def pairs(self, tile: Any, step: Any) -> list[Any]:
        """Two neighbouring input features of the 16 rows in each vector, as pairs of bfloat16."""
        p = self._p
        group = T.Bind(step * STEP // p.group)
        stored = self._scales[tile, group, T.ramp(0, 1, _LANES)]
        scale = T.Bind(
            T.Cast(vector("float32", _LANES), stored) * broadcast(T.float32(SCALE), _LANES)
        )
        offset = T.Bind(-(self._zero(tile, group) * scale))
        vectors = STEP // p.codes_per_word
        pairs = []
        for index in range(vectors):
            words = T.Bind(self._w[tile, step * vectors + index, T.ramp(0, 1, _LANES)])
            # Input feature i is in byte i % 4, of 4 bits the second four in the upper halves.
            shifts = [8 * (i % 4) + 4 * (i // 4) for i in range(p.codes_per_word)]
            values = [
                T.reinterpret(
                    vector("uint32", _LANES),
                    T.call_llvm_pure_intrin(
                        vector("float32", _LANES), "llvm.fma", self._code(words, at), scale, offset
                    ),
                )
                for at in shifts
            ]
            for low, high in zip(values[::2], values[1::2], strict=True):
                pairs.append(_halves(_shifted(low, 16), high))
        return pairs

    def _code(self, words: Any, at: int) -> Any:
        """The codes at bit ``at`` of 16 words, as float32."""
        numbers, floats = vector("int32", _LANES), vector("float32", _LANES)
        shifted = _shifted(words, at)
        if self._p.bits == 4:
            # A table, of which the instruction uses the index' lowest four bits.
            table = T.Cast(floats, T.ramp(0, 1, _LANES))
            return T.call_llvm_pure_intrin(
                floats, "llvm.x86.avx512.permvar.sf.512", table, T.reinterpret(numbers, shifted)
            )
        return T.Cast(floats, T.reinterpret(numbers, T.bitwise_and(shifted, _words(255))))

    def _zero(self, tile: Any, group: Any) -> Any:
        """The zero points of 16 rows in a group, as float32."""
        p = self._p
        if not p.zeros:
            return broadcast(T.float32(p.middle), _LANES)
        words = TILE // p.codes_per_word
        lanes = T.ramp(T.uint32(0), T.uint32(1), _LANES)
        if p.bits == 4:
            # Row r is in word r % 2.
            turns, place = _LANES // words, lanes // _words(words)
            parts = [self._zeros[tile, group, word] for word in range(words)] * turns
        else:
            # Row r is in word r // 4.
            place = lanes % _words(p.codes_per_word)
            parts = [self._zeros[tile, group, lane // p.codes_per_word] for lane in range(_LANES)]
        stored = T.Shuffle(parts, list(range(_LANES)))
        code = T.shift_right(stored, place * _words(p.bits))
        masked = T.bitwise_and(code, _words((1 << p.bits) - 1))
        numbers = T.reinterpret(vector("int32", _LANES), masked)
        return T.Cast(vector("float32", _LANES), numbers)


def _tile(name: str, *operands: Any) -> None:
    T.evaluate(T.call_llvm_intrin("void", f"llvm.x86.{name}", *operands))


def _move(name: str, tile: int, place: Any) -> None:
    """A tile and memory where its rows follow each other."""
    _tile(name, T.int8(tile), place, T.int64(_ROW_BYTES))


def _prefetch(element: Any) -> None:
    """To read, kept in all caches, data."""
    T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", T.address_of(element), 0, 3, 1))
