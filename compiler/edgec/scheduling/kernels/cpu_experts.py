"""A mixture of experts on CPUs: routing, and products with weights that lie row by row.

Few slots, as in decoding, each read the rows of their own expert, with the loops of a linear layer's
single row. Many are counted and put in the order of their experts first: then a tile of an expert's
rows is read once for all slots that chose it, and an expert without any is not read. The tile is
unpacked where that pays; for a few slots its codes come from the cache again, with less arithmetic.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels import HAND_WRITTEN, cpu_dot_experts
from edgec.scheduling.kernels.cpu_matmul import (
    ROWS,
    Activations,
    Matmul,
    Unpacked,
    Weights,
    inside,
    row_sums,
    store,
)
from edgec.scheduling.kernels.expert_groups import Groups

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.scheduling.kernels.byte_dots import ByteDots
    from edgec.scheduling.kernels.experts import Experts, Grouping, Routing
    from edgec.scheduling.kernels.linear import Preparation

_DIRECT = 4
"""Up to how many slots of an expert each meets the codes as they are stored. For more, unpacking them
pays: measured with AVX-512, 128 experts of 1536 by 2048 and 9, 32 and 256 tokens."""

_ATTRIBUTES = {"tirx.noalias": True, "tirx.is_scheduled": True, HAND_WRITTEN: True}


@dataclass(frozen=True)
class CPUExperts:
    """See :class:`edgec.scheduling.kernels.experts.ExpertKernels`.

    Attributes:
        vector_bits: width of the registers to use.
        dots: how products of bytes are summed, for weights in tiles; None if the CPU can't.
        grouping: none: kernels group slots themselves.
    """

    vector_bits: int
    dots: ByteDots | None = None
    grouping: int | None = None

    def choose(self, routing: Routing) -> Any:
        """Tokens in parallel."""
        return choose(routing)

    def group(self, grouping: Grouping) -> Mapping[str, Any]:
        """Not asked for."""
        raise AssertionError(grouping)

    def preparation(self, experts: Experts, *, slots: int | None) -> Preparation | None:
        """Quantization, where products of bytes are summed."""
        if not experts.linear.tiled:
            return None
        return cpu_dot_experts.expert_preparation(experts, self._dots, slots=slots)

    def matmul(self, experts: Experts, *, single: bool) -> Any:
        """Tiles of rows in parallel."""
        if experts.linear.tiled:
            return cpu_dot_experts.expert_matmul(experts, self._dots, single=single)
        return expert_matmul(experts, self.vector_bits, single=single)

    @property
    def _dots(self) -> ByteDots:
        assert self.dots is not None, (
            "a profile with this layout names a CPU that adds products of bytes"
        )
        return self.dots


def choose(r: Routing) -> Any:
    """The PrimFunc ``(logits (m, experts), weights (m, chosen), ids (m, chosen))``."""
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            T.func_attr(_ATTRIBUTES)
            m = T.int64()
            logits = T.arg("logits", T.buffer((m, r.experts), "float32"))
            weights = T.arg("weights", T.buffer((m, r.chosen), "float32"))
            ids = T.arg("ids", T.buffer((m, r.chosen), "int32"))
            with T.sblock("root"), T.parallel(0, m) as token, T.sblock("token"):
                taken = T.sblock_alloc_buffer((r.experts,), "bool")
                best = T.sblock_alloc_buffer((1,), "int32")
                total = T.sblock_alloc_buffer((1,), "float32")
                with T.serial(0, r.experts) as expert:
                    T.buffer_store(taken, False, [expert])
                with T.serial(0, r.chosen) as place:
                    T.buffer_store(best, T.int32(-1), [0])
                    with T.serial(0, r.experts) as expert:
                        current = logits[token, T.max(best[0], 0)]
                        # An index is always found, whatever isn't a number.
                        better = T.Or(best[0] < 0, logits[token, expert] > current)
                        with T.If(T.And(T.Not(taken[expert]), better)), T.Then():
                            T.buffer_store(best, T.Cast("int32", expert), [0])
                    T.buffer_store(taken, True, [best[0]])
                    T.buffer_store(ids, best[0], [token, place])
                largest = T.Bind(logits[token, ids[token, 0]])
                T.buffer_store(total, T.float32(0), [0])
                with T.serial(0, r.chosen if r.normalized else r.experts) as place:
                    expert = ids[token, place] if r.normalized else place
                    T.buffer_store(total, total[0] + T.exp(logits[token, expert] - largest), [0])
                with T.serial(0, r.chosen) as place:
                    value = T.exp(logits[token, ids[token, place]] - largest) / total[0]
                    T.buffer_store(weights, value, [token, place])
        return builder.get()


def expert_matmul(e: Experts, vector_bits: int, *, single: bool) -> Any:
    """The PrimFunc ``(x (r, k), ids (s,), w[, scales[, zeros]], y (s, n))``."""
    p = Matmul(**asdict(e.all), vector_bits=vector_bits)
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            T.func_attr(_ATTRIBUTES)
            rows, slots = T.int64(), T.int64()
            x = T.arg("x", T.buffer((rows, p.k), p.x_dtype))
            ids = T.arg("ids", T.buffer((slots,), "int32"))
            weights = Weights.arguments(p)
            y = T.arg("y", T.buffer((slots, e.linear.n), p.y_dtype))
            with T.sblock("root"):
                packed = Activations(p, x, rows, zero_terms=True)
                packed.fill()
                if single:
                    _by_slot(e, p, packed, ids, weights, y, slots)
                else:
                    groups = Groups(e, slots)
                    with T.If(slots <= e.few):
                        with T.Then():
                            _by_slot(e, p, packed, ids, weights, y, slots)
                        with T.Else():
                            groups.fill(ids)
                            _by_expert(e, p, packed, groups, weights, y)
        return builder.get()


def _by_slot(
    e: Experts, p: Matmul, packed: Activations, ids: Any, weights: Weights, y: Any, slots: Any
) -> None:
    """Each slot reads its expert's weights."""
    n = e.linear.n
    tiles = -(-n // ROWS)
    with T.parallel(0, slots * tiles) as task, T.sblock("tile"):
        slot, tile = T.Bind(task // tiles), T.Bind(task % tiles)
        start = T.Bind(T.Cast("int64", ids[slot]) * n)
        index = [start + inside(tile * ROWS + r, n, ROWS) for r in range(ROWS)]
        sums = row_sums(p, packed, slot // e.share, weights, index)
        for r in range(ROWS):
            store(y, slot, tile * ROWS + r, sums[r], e.linear, guard=n % ROWS != 0)


def _by_expert(
    e: Experts, p: Matmul, packed: Activations, groups: Groups, weights: Weights, y: Any
) -> None:
    """A tile of an expert's rows is read once for all slots that chose it."""
    tiles = -(-e.linear.n // p.tile[0])
    with T.parallel(0, e.experts * tiles) as task, T.sblock("tile"):
        expert, tile = T.Bind(task // tiles), T.Bind(task % tiles)
        begin, end = T.Bind(groups.offsets[expert]), T.Bind(groups.offsets[expert + 1])
        matrix = _Matrix(e, p, weights, y, expert * e.linear.n)
        with T.If(end - begin <= _DIRECT):
            with T.Then(), T.serial(begin, end) as place:
                matrix.add_slot(packed, groups.order[place], tile)
            with T.Else():
                matrix.add_slots(packed, groups.order, (begin, end), tile)


@dataclass(frozen=True)
class _Matrix:
    """One expert's products.

    Attributes:
        e: the layer.
        p: all experts' matrices.
        weights: of all.
        y: the results.
        start: the expert's first row.
    """

    e: Experts
    p: Matmul
    weights: Weights
    y: Any
    start: Any

    def add_slot(self, packed: Activations, slot: Any, tile: Any) -> None:
        """Multiply a slot's activations by a tile's codes."""
        n, rows = self.e.linear.n, self.p.tile[0]
        with T.serial(0, rows // ROWS) as part:
            left = tile * rows + part * ROWS
            index = [self.start + inside(left + r, n, rows) for r in range(ROWS)]
            sums = row_sums(self.p, packed, slot // self.e.share, self.weights, index)
            for r in range(ROWS):
                store(self.y, slot, left + r, sums[r], self.e.linear, guard=n % rows != 0)

    def add_slots(
        self, packed: Activations, order: Any, places: tuple[Any, Any], tile: Any
    ) -> None:
        """Unpack a tile, and multiply the activations of all slots at some places of the order."""
        n, (rows, tall, wide) = self.e.linear.n, self.p.tile
        begin, end = places
        unpacked = Unpacked(self.p)
        unpacked.fill(self.weights, lambda r: self.start + inside(tile * rows + r, n, rows))
        with (
            T.serial(0, T.ceildiv(end - begin, tall)) as top,
            T.serial(0, rows // wide) as left,
        ):
            mine = [begin + top * tall + a for a in range(tall)]
            slots = [T.Bind(order[T.min(place, end - 1)]) for place in mine]
            sums = unpacked.sums(packed, [slot // self.e.share for slot in slots], left)
            for a in range(tall):
                with T.If(mine[a] < end), T.Then():
                    for c in range(wide):
                        column = tile * rows + left * wide + c
                        value = sums[a * wide + c]
                        store(self.y, slots[a], column, value, self.e.linear, guard=n % rows != 0)
