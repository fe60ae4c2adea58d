"""A mixture of experts on GPUs: routing, grouping and products, without sub-groups.

One token reads the rows of the experts that it chose and no others. With many, slots are brought into
the order of their experts first, and a work-group takes a tile of slots that have one expert: its
weights are read once for all of them. How many tiles an expert has is known on the device alone, so
there are as many work-groups as there could be tiles, and those without one end at once.

A barrier costs more in browsers than arithmetic does (see ``gpu_tiles.py``): the place of an expert
among all is found by comparing it with every other one, between two barriers, and not by passes over
the logits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.experts import TILE_FIELDS
from edgec.scheduling.kernels.gpu_tiles import (
    LANE_ROWS,
    LANES,
    ROW_OUTPUTS,
    TILE_OUTPUTS,
    TILE_ROWS,
    TILE_STEP,
    Weights,
    multiply_row,
    multiply_tile,
    tile_row,
)
from edgec.scheduling.kernels.gpu_work_group import (
    Exchange,
    Memory,
    barrier,
    grid,
    keep,
    kernel_attributes,
    launch,
    registers,
    shared,
    when,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.scheduling.kernels.experts import Experts, Grouping, Routing


class GPUExperts:
    """See :class:`edgec.scheduling.kernels.experts.ExpertKernels`."""

    grouping: int | None = TILE_ROWS

    def choose(self, routing: Routing) -> Any:
        """One work-group for each token."""
        return _choose(routing)

    def group(self, grouping: Grouping) -> Mapping[str, Any]:
        """One work-group for each expert, then one for all."""
        return {"order": _order(grouping), "tiles": _tiles(grouping)}

    def preparation(self, experts: Experts, *, slots: int | None) -> None:
        """None: activations are read as they are."""

    def matmul(self, experts: Experts, *, single: bool) -> Any:
        """One form, or both with a choice in the host's code."""
        return _one_token(experts) if single else _many_tokens(experts)


def _choose(r: Routing) -> Any:
    """``(logits (m, experts), weights (m, chosen), ids (m, chosen))``."""
    rounds = -(-r.experts // LANES)
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            m = T.int32()
            logits = Memory(T.arg("logits", T.buffer((m, r.experts), "float32")))
            weights = Memory(T.arg("weights", T.buffer((m, r.chosen), "float32")))
            ids = Memory(T.arg("ids", T.buffer((m, r.chosen), "int32")))
            with launch(LANES, m) as (lane, token):
                keys = shared(r.experts, "int32")
                best = shared(r.chosen, "int32")
                for i in range(rounds):
                    expert = lane + i * LANES
                    with when(expert < r.experts):
                        keys[expert] = _key(logits[token, expert])
                barrier()
                for i in range(rounds):
                    expert = lane + i * LANES
                    with when(expert < r.experts):
                        _place(r, keys, best, expert)
                barrier()
                for i in range(-(-r.chosen // LANES)):
                    with when(lane + i * LANES < r.chosen):
                        place = keep(lane + i * LANES)
                        weights[token, place] = _weight(r, logits, token, best, place)
                        ids[token, place] = best[place]
        return builder.get()


def _key(value: Any) -> Any:
    """An integer that is in the order of the values: every value has a place, a NaN as well."""
    # Zeros are equal.
    bits = keep(T.reinterpret("int32", value + T.float32(0)))
    return T.bitwise_xor(bits, T.bitwise_and(T.shift_right(bits, 31), T.int32(0x7FFFFFFF)))


def _place(r: Routing, keys: Memory, best: Memory, expert: Any) -> None:
    """Write an expert to its place among the best: the number of those that go before it."""
    mine = keep(keys[expert])
    before = registers(1, "int32")
    before[0] = T.int32(0)
    with T.serial(0, r.experts) as other:
        theirs = keep(keys[other])
        equal = T.And(theirs == mine, other < expert)
        before[0] = before[0] + T.Cast("int32", T.Or(theirs > mine, equal))
    with when(before[0] < r.chosen):
        best[before[0]] = expert


def _weight(r: Routing, logits: Memory, token: Any, best: Memory, place: Any) -> Any:
    """The softmax of one of the best."""
    most = keep(logits[token, best[0]], "float32")
    total = registers(1)
    total[0] = T.float32(0)
    with T.serial(0, r.chosen if r.normalized else r.experts) as other:
        expert = best[other] if r.normalized else other
        total[0] = total[0] + T.exp(logits[token, expert] - most)
    return T.exp(logits[token, best[place]] - most) / total[0]


def _order(g: Grouping) -> Any:
    """``(ids (s,), order (s,), offsets (experts + 1,))``: lanes share out the slots in runs."""
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            slots = T.int32()
            ids = Memory(T.arg("ids", T.buffer((slots,), "int32")))
            order = Memory(T.arg("order", T.buffer((slots,), "int32")))
            offsets = Memory(T.arg("offsets", T.buffer((g.experts + 1,), "int32")))
            with launch(LANES, g.experts) as (lane, expert):
                run = T.ceildiv(slots, LANES)
                first = keep(lane * run)
                counts = registers(2, "int32")
                counts[0] = T.int32(0)
                counts[1] = T.int32(0)
                with T.serial(0, run) as i, when(first + i < slots):
                    number = keep(ids[first + i])
                    counts[0] = counts[0] + T.Cast("int32", number < expert)
                    counts[1] = counts[1] + T.Cast("int32", number == expert)
                exchange = Exchange(lane, LANES, "int32")
                start = exchange.reduce(counts[0], lambda a, b: a + b)
                place = registers(1, "int32")
                place[0] = start + exchange.preceding_sum(counts[1])
                with (
                    T.serial(0, run) as i,
                    when(first + i < slots),
                    when(ids[first + i] == expert),
                ):
                    order[place[0]] = first + i
                    place[0] = place[0] + 1
                with when(lane == 0):
                    offsets[expert] = start
                    with when(expert == g.experts - 1):
                        offsets[g.experts] = slots
        return builder.get()


def _tiles(g: Grouping) -> Any:
    """``(offsets (experts + 1,), tiles (count, TILE_FIELDS))``: lanes share out the experts in runs."""
    run = -(-g.experts // LANES)
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            count = T.int32()
            offsets = Memory(T.arg("offsets", T.buffer((g.experts + 1,), "int32")))
            tiles = Memory(T.arg("tiles", T.buffer((count, TILE_FIELDS), "int32")))
            with launch(LANES, 1) as (lane, _):
                mine = registers(1, "int32")
                mine[0] = T.int32(0)
                with T.serial(0, run) as i:
                    expert = lane * run + i
                    with when(expert < g.experts):
                        size = offsets[expert + 1] - offsets[expert]
                        mine[0] = mine[0] + T.ceildiv(size, g.rows)
                exchange = Exchange(lane, LANES, "int32")
                total = exchange.reduce(mine[0], lambda a, b: a + b)
                place = registers(1, "int32")
                place[0] = exchange.preceding_sum(mine[0])
                with T.serial(0, run) as i:
                    expert = keep(lane * run + i)
                    with when(expert < g.experts):
                        start, end = keep(offsets[expert]), keep(offsets[expert + 1])
                        with T.serial(0, T.ceildiv(end - start, g.rows)) as tile:
                            tiles[place[0], 0] = expert
                            tiles[place[0], 1] = start + tile * g.rows
                            tiles[place[0], 2] = T.min(start + (tile + 1) * g.rows, end)
                            place[0] = place[0] + 1
                with T.serial(0, T.ceildiv(count - total, LANES)) as i:
                    empty = keep(total + i * LANES + lane)
                    with when(empty < count):
                        for field in range(TILE_FIELDS):
                            tiles[empty, field] = T.int32(0)
        return builder.get()


def _one_token(e: Experts) -> Any:
    """``(x (r, k), ids (s,), w[, scales[, zeros]], y (s, n))``, ``s`` being the chosen experts of a token."""
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            rows, slots = T.int32(), T.int32()
            x = Memory(T.arg("x", T.buffer((rows, e.linear.k), e.linear.x_dtype)))
            ids = Memory(T.arg("ids", T.buffer((slots,), "int32")))
            weights = Weights.arguments(e.all)
            y = Memory(T.arg("y", T.buffer((slots, e.linear.n), e.linear.y_dtype)))
            with T.sblock("root"):
                _by_slot(e, x, ids, weights, y, slots)
        return builder.get()


def _many_tokens(e: Experts) -> Any:
    """``(x (r, k), ids (s,), order (s,), tiles (count, ...), w[, scales[, zeros]], y (s, n))``."""
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            kernel_attributes()
            rows, slots, count = T.int32(), T.int32(), T.int32()
            x = Memory(T.arg("x", T.buffer((rows, e.linear.k), e.linear.x_dtype)))
            ids = Memory(T.arg("ids", T.buffer((slots,), "int32")))
            order = Memory(T.arg("order", T.buffer((slots,), "int32")))
            tiles = Memory(T.arg("tiles", T.buffer((count, TILE_FIELDS), "int32")))
            weights = Weights.arguments(e.all)
            y = Memory(T.arg("y", T.buffer((slots, e.linear.n), e.linear.y_dtype)))
            # Every thread of a launch takes the same branch: it is taken before the launch.
            few = T.call_intrin("bool", "tirx.tvm_thread_invariant", slots <= e.few)
            with T.sblock("root"), T.If(few):
                with T.Then():
                    _by_slot(e, x, ids, weights, y, slots)
                with T.Else():
                    _by_tile(e, x, order, tiles, weights, y, count)
        return builder.get()


def _by_slot(e: Experts, x: Memory, ids: Memory, weights: Weights, y: Memory, slots: Any) -> None:
    """Each slot reads its expert's weights."""
    with grid(LANES, -(-e.linear.n // ROW_OUTPUTS), slots) as (lane, group, slot):
        start = keep(ids[slot] * e.linear.n)
        row = keep(T.truncdiv(slot, e.share))
        multiply_row(weights, (x, row), (y, slot), start, lane, group)


def _by_tile(
    e: Experts, x: Memory, order: Memory, tiles: Memory, weights: Weights, y: Memory, count: Any
) -> None:
    """The slots of a tile read their expert's weights together."""
    with grid(LANES, -(-e.linear.n // TILE_OUTPUTS), count) as (lane, across, tile):
        first, end = keep(tiles[tile, 1]), keep(tiles[tile, 2])
        with when(first < end):
            start = keep(tiles[tile, 0] * e.linear.n)
            top = keep(first + tile_row(lane))
            places = [top + i * TILE_STEP for i in range(LANE_ROWS)]
            # Past the last slot the last one is read again, and not written.
            slots = [keep(order[T.min(place, end - 1)]) for place in places]
            rows = [keep(T.truncdiv(slot, e.share)) for slot in slots]
            written = [(place < end, slot) for place, slot in zip(places, slots, strict=True)]
            multiply_tile(weights, (x, rows), (y, written), start, lane, across)
