"""``x @ w.T`` on CPUs by sums of products of bytes, for codes in tiles of 16 rows.

The activations come quantized to int8, one scale for each group of columns that shares a scale of the
weights (see :mod:`edgec.scheduling.kernels.quantize_rows`), so that a group's products are summed as
integers, exactly, and one multiplication by both scales turns a sum into a float:

    y[m, n] = sum_j ws[n, j] * xs[m, j] * (sum_k u[n, k] * xq[m, k] - z[n, j] * sum_k xq[m, k])

with ``k`` over the columns of group ``j``. That is the idea of https://arxiv.org/abs/2206.01861 with
groups as small as the weights'. A word of 32 bits holds neighbouring columns of one row of the weights and
neighbouring words hold neighbouring rows (see ``layouts.dot4``), so that unpacking takes a mask and a
shift, no shuffle, and results come out side by side. Arm's products of small matrices want two rows of
eight columns each instead: neighbouring words of a row, which take one shuffle.

One row of activations (decode) is bound by memory; the weights are read once, in order. Many rows share
what is unpacked: a register tile of some rows of activations and some vectors of weight rows walks along
the columns. Each output is summed over the groups in order, whatever the number of rows and of
threads, so that a row's results don't depend on the rows beside it.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels import HAND_WRITTEN
from edgec.scheduling.kernels.dot_sums import sums_in_registers
from edgec.scheduling.kernels.linear import Linear, LinearKernel
from edgec.scheduling.kernels.quantize_rows import BESIDE, WORD, Quantized, block_sizes, preparation
from edgec.scheduling.kernels.vectors import Row, Vectors, ramp, vector, without_regions

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgec.scheduling.kernels.byte_dots import ByteDots

TILE = 16
"""Rows of the weights in a tile."""
STEP = 32
"""Columns whose products are summed without a loop."""
FEW = 2
"""Rows of activations with which every sum would wait for the one before."""
AHEAD = 64
"""How many words of a row further on memory is asked for weights: 4 KiB. Measured with AVX-512, 8 rows
take a fourth less time, one row the same; with AVX2, which computes longer, 128 rows take a sixth more."""


@dataclass(frozen=True)
class TiledMatmul:
    """One kernel's parameters.

    Attributes:
        linear: the layer.
        dots: how products are summed.
        rows: of activations that meet in registers.
        vectors: of weight rows that they meet.
        more: sizes of a last block beside the usual ones; see :func:`block_sizes`.
    """

    linear: Linear
    dots: ByteDots
    rows: int
    vectors: int
    more: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Rows of the weights that are read side by side."""
        return self.vectors * self.dots.lanes

    @property
    def steps(self) -> int:
        """How many times that many rows of the weights."""
        return -(-self.linear.n // TILE) * TILE // self.width


def linear_kernel(linear: Linear, dots: ByteDots, *, single: bool) -> LinearKernel:
    """The kernel of a layer whose weights are tiled; see :class:`LinearKernels`."""
    p = register_tile(linear, dots, single=single)
    plan = preparation(linear, dots, p.rows, single=single)
    if single:
        return LinearKernel(f"gemv_{linear.name}", one_row(p), plan)
    return LinearKernel(f"gemm_{linear.name}", many_rows(p), plan)


def register_tile(linear: Linear, dots: ByteDots, *, single: bool) -> TiledMatmul:
    """Rows of activations and vectors of weight rows, for each of which there are two registers.

    With ``vpmaddubsw`` there is one: a group's sums become floats at its end, and those may wait in memory.
    Against 4 rows, 8 take 7 to 8 % less time with groups of 32 and 3 % more with groups of 128.
    """
    if single:
        return TiledMatmul(linear, dots, 1, TILE // dots.lanes)
    if dots.registers == 16:
        return TiledMatmul(linear, dots, 8 if dots.instruction == "vpmaddubsw" else 4, 1)
    return TiledMatmul(linear, dots, 8, 1 if dots.lanes == TILE else 2)


def one_row(p: TiledMatmul) -> Any:
    """The PrimFunc for one row."""
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            given = Operands.arguments(p, 1)
            with T.sblock("root"), T.parallel(0, p.steps) as step, T.sblock("tile"):
                without_regions()
                one_block(p, given, Place(0, step, lambda _: 0))
        return builder.get()


def many_rows(p: TiledMatmul) -> Any:
    """The PrimFunc for any number of rows."""
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            m = T.int64()
            given = Operands.arguments(p, m)
            with T.sblock("root"), T.parallel(0, p.steps) as step, T.sblock("tile"):
                without_regions()
                with T.serial(0, T.ceildiv(m, p.rows)) as block:
                    rest = T.Bind(m - block * p.rows)
                    one_block(p, given, Place(block, step, lambda r: block * p.rows + r, rest))
        return builder.get()


class Place(NamedTuple):
    """What a register tile multiplies, and where its results go.

    Attributes:
        block: number of the rows of activations.
        step: number of the rows of weights.
        row: of the results, for each row of the block.
        rest: rows of activations from the block's first on; None if the block is full.
        first_tile: of the weights, that of step 0.
    """

    block: Any
    step: Any
    row: Callable[[int], Any]
    rest: Any = None
    first_tile: Any = 0


def one_block(p: TiledMatmul, given: Operands, place: Place) -> None:
    """As many rows as a register tile has; in the last block as few as there is room for."""
    if place.rest is None:
        _Micro(p, given, p.rows, split=p.rows <= FEW).run(place)
        return
    rest, lowest = place.rest, 0
    *smaller, whole = block_sizes(p.rows, p.more)
    for size in smaller:
        with T.If(T.And(rest > lowest, rest <= size)), T.Then():
            _Micro(p, given, size, split=size <= FEW).run(place)
        lowest = size
    with T.If(rest > lowest), T.Then():
        _Micro(p, given, whole).run(place)


@dataclass(frozen=True)
class Operands:
    """What a kernel reads and writes.

    Attributes:
        x: activations.
        w: words of codes, in tiles.
        scales: of the weights, in tiles.
        zeros: zero points, in tiles; None without.
        y: results.
    """

    x: Quantized
    w: Any
    scales: Any
    zeros: Any
    y: Any

    @classmethod
    def arguments(cls, p: TiledMatmul, m: Any) -> Operands:
        """The arguments of a linear layer's kernel for ``m`` rows."""
        dot_attributes(p.dots)
        x = Quantized.arguments(p.linear, p.rows, m)
        weights = weight_arguments(p.linear)
        return cls(x, *weights, T.arg("y", T.buffer((m, p.linear.n), p.linear.y_dtype)))

    def ask_early(self, tile: Any, word: Any) -> None:
        """Ask for words further on: computing with some rows takes longer than a processor looks ahead."""
        place = T.address_of(self.w[tile, word + AHEAD, 0])
        # To read, kept in all caches, data. Beyond the last tile nothing happens.
        T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", place, 0, 3, 1))


def dot_attributes(dots: ByteDots) -> None:
    """Say of a kernel that it was made by hand, and how it reads activations."""
    T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, HAND_WRITTEN: True})
    T.func_attr({BESIDE: dots.words_beside})


def weight_arguments(linear: Linear) -> tuple[Any, Any, Any]:
    """Declare words, scales and zero points in tiles; None without zero points."""
    tiles, groups = -(-linear.n // TILE), linear.k // linear.group
    words = linear.k // linear.codes_per_word
    w = T.arg("w", T.buffer((tiles, words, TILE), "uint32"))
    scales = T.arg("scales", T.buffer((tiles, groups, TILE), linear.scale_dtype))
    if not linear.zeros:
        return w, scales, None
    return w, scales, T.arg("zeros", T.buffer((tiles, groups, linear.bits // 2), "uint32"))


class _Micro:
    """A register tile that walks along the columns.

    Args:
        p: the kernel's parameters.
        given: its arguments.
        rows: of activations that it takes, at most ``p.rows``.
        split: sum products with even and odd words of activations apart: with few rows, every sum would
            wait for the one before.
    """

    def __init__(self, p: TiledMatmul, given: Operands, rows: int, *, split: bool = False) -> None:
        self._p, self._given, self._rows = p, given, rows
        self._linear, self._dots, self._lanes = p.linear, p.dots, p.dots.lanes
        self._shape = sums_in_registers(p.dots, given.x, rows)
        self._parts = 2 if split else 1
        self._floats = Vectors(rows * p.vectors, self._lanes)
        self._ints = Vectors(rows * p.vectors * self._parts, self._lanes, "int32")
        if self._linear.n % TILE:
            self._edge = Row(self._lanes)
        self._pairs = self._dots.instruction == "vpmaddubsw" and self._linear.bits == 4
        if self._pairs:
            self._sums = Vectors(rows * p.vectors, 2 * self._lanes, "int16")

    def run(self, place: Place) -> None:
        """Sum up and store the results."""
        linear = self._linear
        self._block = place.block
        own = [self._place(place.step, v) for v in range(self._p.vectors)]
        self._places = [(place.first_tile + tile, first) for tile, first in own]
        self._columns = [tile * TILE + first for tile, first in own]
        self._floats.clear()
        with T.serial(0, linear.k // linear.group) as group:
            self._clear(group)
            if linear.group == STEP:
                self._products(group, 0)
            else:
                with T.serial(0, linear.group // STEP) as part:
                    self._products(group, part)
            self._scale(group)
        self._store(place)

    def _place(self, step: Any, v: int) -> tuple[Any, Any]:
        """Tile and first lane of a vector."""
        vectors, per_tile = self._p.vectors, TILE // self._lanes
        if vectors % per_tile == 0:
            return step * (vectors // per_tile) + v // per_tile, v % per_tile * self._lanes
        place = step * vectors + v
        return T.Bind(place // per_tile), T.Bind(place % per_tile * self._lanes)

    def _each(self) -> list[tuple[int, int, int]]:
        """Row, or number of rows that share a register, vector and number of every sum."""
        rows, vectors = self._rows // self._shape.height, self._p.vectors * self._shape.height
        return [(r, v, r * vectors + v) for r in range(rows) for v in range(vectors)]

    def _along(self, vectors: list[Any]) -> list[Any]:
        """What belongs to the rows of the weights, for each vector of :meth:`_each`."""
        return [item for values in vectors for item in self._shape.along(values)]

    def _clear(self, group: Any) -> None:
        """Begin with what the zero points take off."""
        linear, lanes, parts = self._linear, self._lanes, self._parts
        zeros = []
        if linear.zeros:
            zeros = self._along([self._zeros(v, group) for v in range(self._p.vectors)])
        for r, v, i in self._each():
            term = self._shape.terms(self._block, group, r)
            if linear.zeros:
                term = term * zeros[v]
            self._ints[i * parts] = term
            for part in range(1, parts):
                self._ints[i * parts + part] = T.broadcast(T.int32(0), lanes)

    def _zeros(self, v: int, group: Any) -> Any:
        """The zero points of a vector's rows, less what was taken off the codes."""
        lanes, bits, (tile, first) = self._lanes, self._linear.bits, self._places[v]
        stored = self._given.zeros
        assert stored is not None, "asked for only where they are"

        def every(value: int) -> Any:
            return T.broadcast(T.int32(value), lanes)

        lane = T.ramp(T.int32(0), 1, lanes)
        if bits == 4:
            # Two words take turns with 4 bits for each row.
            pair = stored[tile, group, ramp(0, 1, 2)]
            words = T.Shuffle([pair] * (lanes // 2), [*range(lanes)])
            place = (T.broadcast(T.Cast("int32", first), lanes) + lane) // every(2)
        else:
            # Four words hold a byte of each row.
            count = lanes // 4
            some = stored[tile, group, ramp(first // 4, 1, count)]
            if count > 1:
                words = T.Shuffle([some] * 4, [i // 4 for i in range(lanes)])
            else:
                words = T.broadcast(some, lanes)
            place = lane % every(4)
        shift = T.Cast(vector("uint32", lanes), place * every(bits))
        mask = T.broadcast(T.uint32((1 << bits) - 1), lanes)
        points = T.bitwise_and(T.shift_right(words, shift), mask)
        value = T.reinterpret(vector("int32", lanes), points)
        return value - every(128) if self._flipped else value

    @property
    def _flipped(self) -> bool:
        """Whether 128 is taken off the codes: bytes whose sums need them signed."""
        return self._dots.signed and self._linear.bits == 8

    def _products(self, group: Any, part: Any) -> None:
        """Add the products of ``STEP`` columns."""
        linear, vectors = self._linear, self._p.vectors
        words = STEP // linear.codes_per_word
        first = T.Bind((group * (linear.group // STEP) + part) * words)
        column = T.Bind((group * (linear.group // STEP) + part) * (STEP // WORD))
        if self._pairs:
            self._sums.clear()
        x = self._shape.activations(self._block, column)
        # A step takes as many columns as words of a row lie side by side: some take two words.
        together = max(1, self._shape.height * WORD // linear.codes_per_word)
        done = 0
        for word in range(0, words, together):
            steps = [self._operands(v, first + word, together) for v in range(vectors)]
            for step in range(len(steps[0])):
                operands = [item for v in range(vectors) for item in steps[v][step]]
                for r in range(self._rows // self._shape.height):
                    activations = x.step(done, r)
                    for v, codes in enumerate(operands):
                        self._add(r * len(operands) + v, done, codes, activations)
                done += 1
        if self._pairs:
            for _, _, i in self._each():
                at = i * self._parts
                self._ints[at] = self._ints[at] + self._dots.pairs_to_int32(self._sums[i])

    def _operands(self, v: int, word: Any, count: int) -> list[list[Any]]:
        """What a vector of some words is in each step."""
        return self._shape.operands(
            [codes for i in range(count) for codes in self._codes(v, word + i)]
        )

    def _add(self, i: int, step: int, codes: Any, activations: Any) -> None:
        dots = self._dots
        if self._pairs:
            wide = T.broadcast(activations, self._lanes)
            self._sums[i] = self._sums[i] + dots.pairs(codes, wide)
            return
        at = i * self._parts + step % self._parts
        if dots.instruction == "vpmaddubsw":
            # Sums of pairs of larger codes than these don't fit into 16 bits.
            for mask in (0x7F7F7F7F, 0x80808080):
                bits = T.bitwise_and(codes, T.broadcast(_int32(mask), self._lanes))
                self._ints[at] = dots.add(self._ints[at], bits, activations)
            return
        self._ints[at] = self._shape.add(self._ints[at], codes, activations)

    def _codes(self, v: int, word: Any) -> list[Any]:
        """The codes of a vector of words as bytes, four columns at a time."""
        lanes, (tile, first) = self._lanes, self._places[v]
        if lanes == TILE:
            self._given.ask_early(tile, word)
        stored = self._given.w[tile, word, ramp(first, 1, lanes)]
        if self._linear.bits == 8:
            if self._flipped:
                stored = T.bitwise_xor(stored, T.broadcast(T.uint32(0x80808080), lanes))
            return [T.Bind(T.reinterpret(vector("int32", lanes), stored))]
        stored = T.Bind(stored)
        mask = T.broadcast(T.uint32(0x0F0F0F0F), lanes)
        if self._dots.by_element:
            bytewise = T.reinterpret(vector("uint8", WORD * lanes), stored)
            high = T.shift_right(bytewise, T.broadcast(T.uint8(4), WORD * lanes))
            low = T.reinterpret(vector("int32", lanes), T.bitwise_and(stored, mask))
            return [T.Bind(low), T.Bind(T.reinterpret(vector("int32", lanes), high))]
        shifted = T.shift_right(stored, T.broadcast(T.uint32(4), lanes))
        return [
            T.Bind(T.reinterpret(vector("int32", lanes), T.bitwise_and(half, mask)))
            for half in (stored, shifted)
        ]

    def _scale(self, group: Any) -> None:
        """Add the group's sums to the results."""
        lanes, kind = self._lanes, vector("float32", self._lanes)
        scales = []
        for tile, first in self._places:
            stored = self._given.scales[tile, group, ramp(first, 1, lanes)]
            scales.append(T.Bind(T.Cast(kind, stored)))
        scales = self._along(scales)
        for r, v, i in self._each():
            total = self._ints[i * self._parts]
            for part in range(1, self._parts):
                total = total + self._ints[i * self._parts + part]
            steps, number = self._shape.scales(self._block, group, r), T.Cast(kind, total)
            # An operand in memory is multiplied at once. From a register it waits in none for the sum.
            value = (
                number * scales[v] * steps
                if self._dots.by_element
                else number * (scales[v] * steps)
            )
            self._floats[i] = self._floats[i] + value

    def _store(self, place: Place) -> None:
        height, vectors, rest = self._shape.height, self._p.vectors, place.rest
        for first_row in range(0, self._rows, height):
            for v, column in enumerate(self._columns):
                i = first_row * vectors + v * height
                found = self._shape.in_rows([self._floats[i + half] for half in range(height)])
                for r, result in enumerate(found, first_row):
                    condition = T.If(rest > r) if rest is not None else nullcontext()
                    with condition, _then(rest is not None):
                        self._store_row(place.row(r), column, result)

    def _store_row(self, row: Any, column: Any, values: Any) -> None:
        """Store one vector of results, of which some may belong to no row of the weights."""
        linear, lanes, y = self._linear, self._lanes, self._given.y
        converted = T.Cast(vector(linear.y_dtype, lanes), values)
        if linear.n % TILE == 0:
            T.buffer_store(y, converted, [row, ramp(column, 1, lanes)])
            return
        with T.If(column + lanes <= linear.n):
            with T.Then():
                T.buffer_store(y, converted, [row, ramp(column, 1, lanes)])
            with T.Else():
                self._edge.store(values)
                with T.serial(0, T.max(linear.n - column, 0)) as lane:
                    value = T.Cast(linear.y_dtype, self._edge[lane])
                    T.buffer_store(y, value, [row, column + lane])


def _int32(value: int) -> Any:
    return T.int32(value - (1 << 32) if value >= 1 << 31 else value)


def _then(condition: bool) -> Any:
    return T.Then() if condition else nullcontext()
