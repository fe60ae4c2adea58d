"""Slots in the order of their experts, on a CPU: by counting, inside of the kernel that needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvm.tirx.script import builder as T

if TYPE_CHECKING:
    from edgec.scheduling.kernels.experts import Experts


class Groups:
    """The slots of expert 0, then those of 1, each in rising order.

    Args:
        e: the layer.
        slots: how many there are.

    Attributes:
        order: int32 ``(slots,)``.
        offsets: int32 ``(experts + 1,)``, where each expert's slots begin.
    """

    def __init__(self, e: Experts, slots: Any) -> None:
        self._experts = e.experts
        self._slots = slots
        self.order = T.sblock_alloc_buffer((slots,), "int32")
        self.offsets = T.sblock_alloc_buffer((e.experts + 1,), "int32")
        self._places = T.sblock_alloc_buffer((e.experts,), "int32")

    def fill(self, ids: Any) -> None:
        """Count and sort; one thread is faster than many would be to start."""
        with T.serial(0, self._experts) as expert:
            T.buffer_store(self._places, T.int32(0), [expert])
        with T.serial(0, self._slots) as slot:
            T.buffer_store(self._places, self._places[ids[slot]] + 1, [ids[slot]])
        T.buffer_store(self.offsets, T.int32(0), [0])
        with T.serial(0, self._experts) as expert:
            begin = self.offsets[expert]
            T.buffer_store(self.offsets, begin + self._places[expert], [expert + 1])
            T.buffer_store(self._places, begin, [expert])
        with T.serial(0, self._slots) as slot:
            T.buffer_store(self.order, T.Cast("int32", slot), [self._places[ids[slot]]])
            T.buffer_store(self._places, self._places[ids[slot]] + 1, [ids[slot]])
