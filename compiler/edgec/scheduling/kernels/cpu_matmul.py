"""``x @ w.T`` on CPUs, for plain weights and for integer codes in 32-bit words with group scales.

Both shapes of the problem read the weights in their stored order, once:

* one row of activations (decode) is bound by memory: codes are unpacked in registers and
  accumulated at once, several output rows together to hide the latency of the additions;
* many rows (prefill, batches) are bound by arithmetic: a tile of weight rows is unpacked into a
  scratch that stays in the cache, and register tiles of dot products run over it.

A word holds ``codes_per_word`` neighbouring codes, so a vector of words shifted by ``j`` codes
holds every ``codes_per_word``-th code. The activations are brought into that order first, which
costs one pass over them instead of a shuffle for every vector of weights.

Sums are float32 whatever the dtypes. Each output is summed by one thread in a fixed order, so
results don't depend on the number of threads.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels import HAND_WRITTEN
from edgec.scheduling.kernels.linear import Linear, LinearKernel, LinearKernels
from edgec.scheduling.kernels.vectors import Vectors, broadcast, ramp, vector

if TYPE_CHECKING:
    from collections.abc import Callable

SCRATCH_BYTES = 256 << 10
"""Unpacked weight rows of a tile: a quarter of the L2 cache of a current core."""


ROWS = 4
"""Rows of the weights that meet one row of activations side by side."""


@dataclass(frozen=True)
class Matmul(Linear):
    """One kernel's parameters.

    Attributes:
        vector_bits: width of the registers to use.
    """

    vector_bits: int = 128

    @property
    def lanes(self) -> int:
        """Lanes of the vectors: the most that divide ``k`` evenly."""
        lanes = self.vector_bits // 32
        while self.k % (lanes * self.codes_per_word):
            lanes //= 2
        return lanes

    @property
    def blocks(self) -> int:
        """Vectors of weights in a row."""
        return self.k // (self.lanes * self.codes_per_word)

    @property
    def tile(self) -> tuple[int, int, int]:
        """Of many rows: rows of weights unpacked at once; rows of each side that meet in registers.

        4 x 4 accumulators with 512-bit registers, of which there are 32; 2 x 4 with 16 of 256 bits.
        """
        rows = 16
        while rows > 4 and rows * self.k * 4 > SCRATCH_BYTES:
            rows //= 2
        return rows, 4 if self.vector_bits >= 512 else 2, 4


def linear_kernels(vector_bits: int) -> LinearKernels:
    """The CPU's kernels, for :class:`edgec.passes.lower_linear.LowerLinear`."""

    def make(linear: Linear, *, single: bool) -> LinearKernel:
        parameters = Matmul(**asdict(linear), vector_bits=vector_bits)
        if single:
            return LinearKernel(f"gemv_{linear.name}", one_row(parameters))
        return LinearKernel(f"gemm_{linear.name}", many_rows(parameters))

    return make


def one_row(p: Matmul) -> Any:
    """The PrimFunc ``(x (1, k), w[, scales[, zeros]], y (1, n))``."""
    rows = ROWS
    tiles = -(-p.n // rows)
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            x, weights, y = _arguments(p, 1)
            with T.sblock("root"):
                packed = Activations(p, x, 1, zero_terms=True)
                packed.fill()
                with T.parallel(0, tiles) as tile, T.sblock("tile"):
                    index = [inside(tile * rows + r, p.n, rows) for r in range(rows)]
                    sums = row_sums(p, packed, 0, weights, index)
                    for r in range(rows):
                        store(y, 0, tile * rows + r, sums[r], p, guard=p.n % rows != 0)
        return builder.get()


def row_sums(p: Matmul, packed: Activations, row: Any, weights: Weights, index: Any) -> list[Any]:
    """Products of one row of activations with some rows ``index`` of the weights."""
    rows = len(index)
    acc = Vectors(rows, p.lanes)
    acc.clear()
    part = Vectors(rows, p.lanes)
    with T.serial(0, p.blocks) as block:
        for r in range(rows):
            weights.prefetch(index[r], rows, block)
        if p.bits:
            for r in range(rows):
                part[r] = packed.zero_point_term(row, block, weights.zero(index[r], block))
        for j in range(p.codes_per_word):
            values = packed.vector(row, block, j)
            for r in range(rows):
                target = part if p.bits else acc
                target[r] = target[r] + weights.code(index[r], block, j) * values
        if p.bits:
            for r in range(rows):
                acc[r] = acc[r] + part[r] * weights.scale(index[r], block)
    return acc.sums()


def many_rows(p: Matmul) -> Any:
    """The PrimFunc ``(x (m, k), w[, scales[, zeros]], y (m, n))`` for any ``m``."""
    rows, tall, wide = p.tile
    tiles = -(-p.n // rows)
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            m = T.int64()
            x, weights, y = _arguments(p, m)
            with T.sblock("root"):
                packed = Activations(p, x, m)
                packed.fill()
                with T.parallel(0, tiles) as tile, T.sblock("tile"):
                    scratch = T.sblock_alloc_buffer(
                        (rows, p.blocks, p.codes_per_word, p.lanes), "float32"
                    )
                    acc = Vectors(tall * wide, p.lanes)
                    lane = ramp(0, 1, p.lanes)
                    with T.serial(0, rows) as r, T.serial(0, p.blocks) as block:
                        row = inside(tile * rows + r, p.n, rows)
                        for j in range(p.codes_per_word):
                            T.buffer_store(
                                scratch, weights.value(row, block, j), [r, block, j, lane]
                            )
                    with (
                        T.serial(0, T.ceildiv(m, tall)) as top,
                        T.serial(0, rows // wide) as left,
                    ):
                        acc.clear()
                        with T.serial(0, p.blocks) as block:
                            for j in range(p.codes_per_word):
                                right = [
                                    scratch[left * wide + c, block, j, lane] for c in range(wide)
                                ]
                                for a in range(tall):
                                    values = packed.vector(T.min(top * tall + a, m - 1), block, j)
                                    for c in range(wide):
                                        i = a * wide + c
                                        acc[i] = acc[i] + values * right[c]
                        sums = acc.sums()
                        for a in range(tall):
                            with T.If(top * tall + a < m), T.Then():
                                for c in range(wide):
                                    column = tile * rows + left * wide + c
                                    store(
                                        y,
                                        top * tall + a,
                                        column,
                                        sums[a * wide + c],
                                        p,
                                        guard=p.n % rows != 0,
                                    )
        return builder.get()


def _arguments(p: Matmul, m: Any) -> tuple[Any, Weights, Any]:
    T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True, HAND_WRITTEN: True})
    x = T.arg("x", T.buffer((m, p.k), p.x_dtype))
    weights = Weights.arguments(p)
    y = T.arg("y", T.buffer((m, p.n), p.y_dtype))
    return x, weights, y


def inside(row: Any, n: int, rows: int) -> Any:
    """The row, or the last one where a tile reaches beyond the matrix."""
    return T.min(row, n - 1) if n % rows else row


def store(y: Any, row: Any, column: Any, value: Any, p: Linear, *, guard: bool) -> None:
    """Write a result; with ``guard`` not where a tile reaches beyond the matrix."""
    result = T.Cast(p.y_dtype, value)
    if not guard:
        T.buffer_store(y, result, [row, column])
        return
    with T.If(column < p.n), T.Then():
        T.buffer_store(y, result, [row, column])


class Weights:
    """Vectors of a stored weight matrix."""

    def __init__(self, p: Matmul, w: Any, scales: Any, zeros: Any = None) -> None:
        self._p = p
        self._w = w
        self._scales = scales
        self._zeros = zeros

    @classmethod
    def arguments(cls, p: Matmul) -> Weights:
        """Declare the arguments that hold them: ``w``, if quantized ``scales``, perhaps ``zeros``."""
        w = T.arg("w", T.buffer((p.n, p.k // p.codes_per_word), p.w_dtype))
        if not p.bits:
            return cls(p, w, None)
        scales = T.arg("scales", T.buffer((p.n, p.k // p.group), p.scale_dtype))
        if not p.zeros:
            return cls(p, w, scales)
        return cls(p, w, scales, T.arg("zeros", T.buffer((p.n, p.zero_words), "uint32")))

    def prefetch(self, row: Any, ahead: int, block: Any) -> None:
        """Ask for the vector at ``block`` of the row ``ahead`` rows further on.

        A tile is about one page, too short for the processor to see where the next one begins.
        """
        p = self._p
        place = T.address_of(self._w[T.min(row + ahead, p.n - 1), block * p.lanes])
        # To read, kept in all caches, data.
        T.evaluate(T.call_llvm_intrin("void", "llvm.prefetch", place, 0, 3, 1))

    def code(self, row: Any, block: Any, j: int) -> Any:
        """Stored values ``j`` of each word of a vector, as float32 without their scale."""
        p = self._p
        stored = self._w[row, ramp(block * p.lanes, 1, p.lanes)]
        if not p.bits:
            return T.Cast(vector("float32", p.lanes), stored)
        mask = broadcast(T.uint32((1 << p.bits) - 1), p.lanes)
        shifted = T.shift_right(stored, broadcast(T.uint32(p.bits * j), p.lanes)) if j else stored
        # A signed conversion is one instruction where an unsigned one may be several.
        code = T.reinterpret(vector("int32", p.lanes), T.bitwise_and(shifted, mask))
        return T.Cast(vector("float32", p.lanes), code)

    def scale(self, row: Any, block: Any) -> Any:
        """The scales of the words of a vector."""
        return self._of_groups(block, lambda group: T.Cast("float32", self._scales[row, group]))

    def zero(self, row: Any, block: Any) -> Any:
        """The zero points of the words of a vector, as float32; None if all are the middle."""
        p = self._p
        if not p.zeros:
            return None

        def points(first: Any, lanes: int, words: int) -> Any:
            """Zero points from group ``first`` on, each for ``words`` lanes; one word holds them."""
            word = broadcast(self._zeros[row, first // p.codes_per_word], lanes)
            shift = broadcast(T.Cast("uint32", first % p.codes_per_word * p.bits), lanes)
            if lanes > words:
                places = T.ramp(0, 1, lanes) // broadcast(T.int32(words), lanes)
                steps = places * broadcast(T.int32(p.bits), lanes)
                shift = shift + T.Cast(vector("uint32", lanes), steps)
            mask = broadcast(T.uint32((1 << p.bits) - 1), lanes)
            stored = T.bitwise_and(T.shift_right(word, shift), mask)
            return T.Cast(vector("float32", lanes), T.reinterpret(vector("int32", lanes), stored))

        words = p.group // p.codes_per_word
        if words >= p.lanes:
            return broadcast(points(block * p.lanes // words, 1, 1), p.lanes)
        groups = p.lanes // words
        if p.codes_per_word % groups == 0:
            return points(block * groups, p.lanes, words)
        return self._of_groups(block, lambda group: points(group, 1, 1))

    def _of_groups(self, block: Any, value: Callable[[Any], Any]) -> Any:
        """A value of each group, once for every word of a vector that belongs to it."""
        p = self._p
        words = p.group // p.codes_per_word
        first = block * p.lanes // words
        if words >= p.lanes:
            return broadcast(value(first), p.lanes)
        parts = [broadcast(value(first + i), words) for i in range(p.lanes // words)]
        return T.Shuffle(parts, list(range(p.lanes)))

    def value(self, row: Any, block: Any, j: int) -> Any:
        """The weights themselves."""
        p = self._p
        code = self.code(row, block, j)
        if not p.bits:
            return code
        zero = self.zero(row, block)
        if zero is None:
            zero = broadcast(T.float32(p.middle), p.lanes)
        return (code - zero) * self.scale(row, block)


class Unpacked:
    """A tile of weight rows as float32, in a scratch that stays in the cache.

    Args:
        p: the layer; ``p.tile`` is the size.
    """

    def __init__(self, p: Matmul) -> None:
        self._p = p
        rows, tall, wide = p.tile
        self._shape = tall, wide
        self._rows = rows
        self._scratch = T.sblock_alloc_buffer(
            (rows, p.blocks, p.codes_per_word, p.lanes), "float32"
        )
        self._acc = Vectors(tall * wide, p.lanes)

    def fill(self, weights: Weights, row: Callable[[Any], Any]) -> None:
        """Unpack the rows ``row(0), row(1), ...``."""
        p = self._p
        with T.serial(0, self._rows) as r, T.serial(0, p.blocks) as block:
            source = row(r)
            for j in range(p.codes_per_word):
                value = weights.value(source, block, j)
                T.buffer_store(self._scratch, value, [r, block, j, ramp(0, 1, p.lanes)])

    def sums(self, packed: Activations, rows: list[Any], left: Any) -> list[Any]:
        """Products of ``rows`` of the activations with the rows of number ``left`` of its columns."""
        p, acc, (tall, wide) = self._p, self._acc, self._shape
        lane = ramp(0, 1, p.lanes)
        acc.clear()
        with T.serial(0, p.blocks) as block:
            for j in range(p.codes_per_word):
                right = [self._scratch[left * wide + c, block, j, lane] for c in range(wide)]
                for a in range(tall):
                    values = packed.vector(rows[a], block, j)
                    for c in range(wide):
                        i = a * wide + c
                        acc[i] = acc[i] + values * right[c]
        return acc.sums()


class Activations:
    """The activations as float32 in the order of the weights' vectors.

    Args:
        p: the layer.
        x: the activations ``(m, k)``.
        m: how many rows.
        zero_terms: whether :meth:`zero_point_term` is asked for.
    """

    def __init__(self, p: Matmul, x: Any, m: Any, *, zero_terms: bool = False) -> None:
        self._p = p
        self._x = x
        self._m = m
        self._copy = p.bits != 0 or p.x_dtype != "float32"
        if self._copy:
            self._values = T.sblock_alloc_buffer(
                (m, p.blocks, p.codes_per_word, p.lanes), "float32"
            )
        # With a stored code q = code + z, sum(code * x) = sum(q * x) - z * sum(x): the second
        # term, or without z the sum, doesn't depend on the weights. Only kernels that multiply codes
        # use it.
        self._zero_terms = (
            T.sblock_alloc_buffer((m, p.blocks, p.lanes), "float32")
            if p.bits and zero_terms
            else None
        )

    def fill(self) -> None:
        """Write the copy, in parallel over the rows."""
        p = self._p
        if not self._copy:
            return
        lane = ramp(0, 1, p.lanes)
        loop = T.serial if isinstance(self._m, int) else T.parallel
        with loop(0, self._m) as row, T.serial(0, p.blocks) as block:
            for j in range(p.codes_per_word):
                first = block * (p.lanes * p.codes_per_word) + j
                source = self._x[row, ramp(first, p.codes_per_word, p.lanes)]
                T.buffer_store(
                    self._values,
                    T.Cast(vector("float32", p.lanes), source),
                    [row, block, j, lane],
                )
            if self._zero_terms is not None:
                total = self.vector(row, block, 0)
                for j in range(1, p.codes_per_word):
                    total = total + self.vector(row, block, j)
                if not p.zeros:
                    total = broadcast(T.float32(-p.middle), p.lanes) * total
                T.buffer_store(self._zero_terms, total, [row, block, lane])

    def vector(self, row: Any, block: Any, j: int) -> Any:
        """Activations that meet ``code(..., block, j)``."""
        lanes = self._p.lanes
        if self._copy:
            return self._values[row, block, j, ramp(0, 1, lanes)]
        return self._x[row, ramp(block * lanes, 1, lanes)]

    def zero_point_term(self, row: Any, block: Any, zero: Any = None) -> Any:
        """``-z`` times the sum over the words of a row's block, lane by lane.

        Args:
            row: of the activations.
            block: of the row.
            zero: ``z`` of every lane; None if all are the middle.
        """
        assert self._zero_terms is not None
        term = self._zero_terms[row, block, ramp(0, 1, self._p.lanes)]
        return term if zero is None else broadcast(T.float32(0), self._p.lanes) - zero * term
