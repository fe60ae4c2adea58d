"""AWQ checkpoints (Lin et al., 2023) as AutoAWQ writes them, version GEMM, of 4 bits.

For a module with K inputs and N outputs:

* ``qweight`` int32 ``(K, N / 8)``: codes, packed along N;
* ``scales`` ``(groups, N)``: one for each group of inputs and output;
* ``qzeros`` int32 ``(groups, N / 8)``: zero points, packed like the codes.

A word holds the outputs 0, 2, 4, 6, 1, 3, 5, 7 of its eight, from the lowest bits on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.checkpoints.codes import CodesForm
from edgec.checkpoints.quantized.fields import WHOLE_ROW
from edgec.checkpoints.quantized.format import Layout, modules
from edgec.checkpoints.quantized.grouped import Grouped, Groups, check_sizes
from edgec.checkpoints.quantized.words import AWQ_NIBBLES, unpack_across

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Self

    from edgec.checkpoints.quantized.columns import Columns
    from edgec.checkpoints.quantized.fields import Fields
    from edgec.checkpoints.quantized.stored import Stored
    from edgec.parallel import Workspace

_PARTS = ("qweight", "scales", "qzeros")
_BITS = 4
_PER_WORD = 8


@dataclass(frozen=True)
class Awq:
    """AWQ; see :class:`edgec.checkpoints.quantized.format.Format`.

    Attributes:
        group_size: -1 for a scale per row.
        text: one line for people.
    """

    group_size: int
    text: str

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """From ``quantization_config``."""
        fields.only("AWQ codes of this many bits:", fields.integer("bits", "w_bit"), (_BITS,))
        fields.only("the AWQ version", fields.text("version", default="gemm"), ("gemm",))
        size = fields.group_size("group_size", "q_group_size", default=WHOLE_ROW)
        groups = "a scale per row" if size == WHOLE_ROW else f"groups of {size}"
        return cls(size, f"{_BITS} bits, {groups}, with zero points")

    @property
    def codes(self) -> CodesForm | None:
        """See :attr:`Format.codes`; None for a scale per row, whose length the config doesn't say."""
        if self.group_size == WHOLE_ROW:
            return None
        return CodesForm(_BITS, self.group_size, "float16", zeros=True)

    def layout(self, names: Collection[str]) -> Layout:
        """See :meth:`Format.layout`."""
        there = frozenset(names)
        return Layout(
            {
                f"{module}.weight": tuple(
                    f"{module}.{part}" for part in _PARTS if f"{module}.{part}" in there
                )
                for module in modules(names, ".qweight")
            }
        )

    def restore(self, name: str, stored: Stored) -> AwqMatrix:
        """See :meth:`Format.restore`."""
        module = name.removesuffix(".weight")
        qweight = f"{module}.qweight"
        shape = stored.part(qweight, ("I32",)).shape
        if len(shape) != 2 or 0 in shape:
            raise stored.damaged(qweight, f"has shape {list(shape)} where two axes belong")
        inputs, outputs = shape[0], shape[1] * _PER_WORD
        size = inputs if self.group_size == WHOLE_ROW else min(self.group_size, inputs)
        groups = Groups(module, outputs, inputs, _BITS, size)
        check_sizes(groups, stored)
        return AwqMatrix(groups, stored)


class AwqMatrix(Grouped):
    """The weight of one module."""

    def codes_into(self, start: int, out: NDArray[np.uint8], scratch: Workspace) -> None:
        """See :meth:`Grouped.codes_into`."""
        self._unpack("qweight", self.stored.words, start, out, scratch)

    def zeros_into(self, start: int, out: NDArray[np.uint8], scratch: Workspace) -> None:
        """See :meth:`Grouped.zeros_into`."""
        self._unpack("qzeros", self.stored.sides, start, out, scratch)

    def _unpack(
        self, part: str, columns: Columns, start: int, out: NDArray[np.uint8], scratch: Workspace
    ) -> None:
        first, last = start // _PER_WORD, -(-(start + len(out)) // _PER_WORD)
        words = scratch.array("words", (last - first, out.shape[1]), "<u4")
        columns.into(f"{self.groups.module}.{part}", first, last, words)
        unpack_across(words, start, _BITS, AWQ_NIBBLES, out, scratch)
