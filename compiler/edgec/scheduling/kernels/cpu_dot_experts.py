"""A mixture of experts on CPUs by sums of products of bytes: the register tiles of ``cpu_dot``.

The activations come quantized row by row, once for all experts that read a row. A token alone meets
the weights of its experts one after the other, as a linear layer's single row does. Slots of several
tokens are put in the order of their experts, and copies of their rows into blocks as many rows high as
a register tile, each of one expert: an expert's weights are read once for all its slots. The last block
of an expert has room for few more rows than it has slots, and an expert without any is not read.

How slots are spread over experts decides how long each takes. So what is shared among threads is not
experts but work, the number of slots times the rows of weights that they meet: where a thread's part
begins is worked out by each. It reads the weights in the order in which they lie, through the end of one
expert and the beginning of the next.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.cpu_dot import (
    TILE,
    Operands,
    Place,
    TiledMatmul,
    dot_attributes,
    one_block,
    register_tile,
    weight_arguments,
)
from edgec.scheduling.kernels.expert_groups import Groups
from edgec.scheduling.kernels.quantize_rows import (
    WORD,
    Quantized,
    outputs,
    preparation,
    room_of,
    word_place,
)
from edgec.scheduling.kernels.vectors import without_regions

if TYPE_CHECKING:
    from edgec.scheduling.kernels.byte_dots import ByteDots
    from edgec.scheduling.kernels.experts import Experts
    from edgec.scheduling.kernels.linear import Preparation

_MORE_SIZES = (6,)
"""Most experts have a last block: with these, 64 tokens of 8 of 128 experts took 0.88 of the time."""
_TASKS = 96
"""Into how many equal parts the work is cut: a multiple of the numbers of threads that there are."""


def expert_preparation(e: Experts, dots: ByteDots, *, slots: int | None) -> Preparation:
    """Quantization of the activations, row by row.

    Args:
        e: the layer.
        dots: how its kernel adds up products.
        slots: how many there are, if that is known.
    """
    if slots is None:
        return preparation(e.linear, dots, 1, single=False)
    return preparation(e.linear, dots, 1, single=True, count=slots // e.share)


def expert_matmul(e: Experts, dots: ByteDots, *, single: bool) -> Any:
    """The PrimFunc ``(words, scales, terms, ids (s,), w, scales[, zeros], y (s, n))``.

    Activations are in blocks of one row, ``(r, ...)``; see :class:`Quantized`.

    Args:
        e: the layer, whose weights are tiled.
        dots: how products are summed.
        single: whether there is one token.
    """
    p = replace(register_tile(e.linear, dots, single=single), more=_MORE_SIZES)
    with IRBuilder() as builder:
        with T.prim_func(is_private=True, s_tir=True):
            dot_attributes(dots)
            rows, slots = T.int64(), T.int64()
            x = Quantized.arguments(e.linear, 1, rows)
            ids = T.arg("ids", T.buffer((slots,), "int32"))
            weights = weight_arguments(e.all)
            y = T.arg("y", T.buffer((slots, e.linear.n), e.linear.y_dtype))
            with T.sblock("root"):
                if single:
                    _by_slot(e, p, Operands(x, *weights, y), ids, slots)
                else:
                    groups, blocks = Groups(e, slots), _Blocks(e, p, slots)
                    groups.fill(ids)
                    blocks.count(groups)
                    blocks.fill(x, ids, groups)
                    _by_expert(e, p, Operands(blocks.x, *weights, y), groups, blocks)
        return builder.get()


def _by_slot(e: Experts, p: TiledMatmul, given: Operands, ids: Any, slots: Any) -> None:
    """Each slot reads its expert's weights."""
    with T.parallel(0, slots * p.steps) as task, T.sblock("tile"):
        without_regions()
        slot, step = T.Bind(task // p.steps), T.Bind(task % p.steps)
        tile = T.Bind(T.Cast("int64", ids[slot]) * (e.linear.n // TILE))
        one_block(p, given, Place(slot // e.share, step, lambda _: slot, first_tile=tile))


class _Blocks:
    """The activations of all slots, in blocks that have one expert each.

    Attributes:
        x: in the form that register tiles read.
        first: int32 ``(experts + 1,)``, each expert's first block.
        work: int32 ``(experts + 1,)``, what is done before each expert's first step.
    """

    def __init__(self, e: Experts, p: TiledMatmul, slots: Any) -> None:
        self._e, self._p, self._slots = e, p, slots
        # Each expert has one that isn't full, and a slot is in one.
        count = T.min(slots, slots // p.rows + e.experts)
        shapes = outputs(e.linear, p.rows, count * p.rows)
        self.x = Quantized(*(T.sblock_alloc_buffer(*shape) for shape in shapes))
        self.first = T.sblock_alloc_buffer((e.experts + 1,), "int32")
        self.work = T.sblock_alloc_buffer((e.experts + 1,), "int32")

    def count(self, groups: Groups) -> None:
        """Find out where each expert's blocks and work begin."""
        rows = T.int32(self._p.rows)
        for buffer in (self.first, self.work):
            T.buffer_store(buffer, T.int32(0), [0])
        with T.serial(0, self._e.experts) as expert:
            slots = T.Bind(groups.offsets[expert + 1] - groups.offsets[expert])
            blocks = (slots + rows - T.int32(1)) // rows
            T.buffer_store(self.first, self.first[expert] + blocks, [expert + 1])
            # Fewer rows than a block has wait for memory.
            each = T.if_then_else(slots > 0, T.max(slots, rows), T.int32(0))
            work = self.work[expert] + each * T.int32(self._p.steps)
            T.buffer_store(self.work, work, [expert + 1])

    def fill(self, x: Quantized, ids: Any, groups: Groups) -> None:
        """Copy each slot's row."""
        e, p, to = self._e, self._p, self.x
        with T.parallel(0, self._slots) as place, T.sblock("slot"):
            without_regions()
            slot = T.Bind(T.Cast("int64", groups.order[place]))
            row = T.Bind(slot // e.share)
            expert = T.Bind(ids[slot])
            begin = T.Bind(T.Cast("int64", groups.offsets[expert]))
            end = T.Cast("int64", groups.offsets[expert + 1])
            within = T.Bind((place - begin) % p.rows)
            block = T.Bind(T.Cast("int64", self.first[expert]) + (place - begin) // p.rows)
            room = T.Bind(room_of(p.rows, end - (place - within), p.more))
            beside = p.dots.words_beside
            with T.serial(0, e.linear.k // WORD // beside) as words:
                for i in range(beside):
                    word = words * beside + i
                    at = word_place(word, within, room, beside)
                    T.buffer_store(to.words, x.words[row, word], [block, at])
            with T.serial(0, e.linear.k // e.linear.group) as group:
                at = group * room + within
                T.buffer_store(to.scales, x.scales[row, group], [block, at])
                T.buffer_store(to.terms, x.terms[row, group], [block, at])


def _by_expert(
    e: Experts, p: TiledMatmul, given: Operands, groups: Groups, blocks: _Blocks
) -> None:
    """Rows of an expert's weights are read once for all slots that chose it."""
    with T.parallel(0, _TASKS) as task, T.sblock("tiles"):
        without_regions()
        total = T.Bind(T.Cast("int64", blocks.work[e.experts]))
        low, high = T.Bind(total * task // _TASKS), T.Bind(total * (task + 1) // _TASKS)
        with T.serial(0, e.experts) as expert:
            begin = T.Bind(T.Cast("int64", blocks.work[expert]))
            end = T.Bind(T.Cast("int64", blocks.work[expert + 1]))
            mine = T.And(begin < end, T.And(begin < high, low < end))
            with T.If(mine), T.Then():
                # The work of a step: those that begin in this part are taken.
                each = T.Bind((end - begin) // p.steps)
                first = T.Bind(T.ceildiv(T.max(low - begin, 0), each))
                last = T.Bind(T.ceildiv(T.min(high, end) - begin, each))
                with T.serial(first, last) as step:
                    _one_step(e, p, given, groups, blocks, expert, step)


def _one_step(
    e: Experts,
    p: TiledMatmul,
    given: Operands,
    groups: Groups,
    blocks: _Blocks,
    expert: Any,
    step: Any,
) -> None:
    """Some rows of an expert's weights with all its slots."""
    begin = T.Bind(T.Cast("int64", groups.offsets[expert]))
    count = T.Bind(T.Cast("int64", groups.offsets[expert + 1]) - begin)
    first = T.Bind(T.Cast("int64", blocks.first[expert]))
    tile = T.Bind(expert * (e.linear.n // TILE))
    with T.serial(0, T.ceildiv(count, p.rows)) as block:
        top = T.Bind(begin + block * p.rows)
        place = Place(
            T.Bind(first + block),
            step,
            lambda r: T.Cast("int64", groups.order[top + r]),
            T.Bind(begin + count - top),
            tile,
        )
        one_block(p, given, place)
