"""GPTQ checkpoints (Frantar et al., 2022) as AutoGPTQ and GPTQModel write them, of 4 or 8 bits.

For a module with K inputs and N outputs:

* ``qweight`` int32 ``(K * bits / 32, N)``: codes, packed along K, the lowest bits first;
* ``scales`` ``(groups, N)``: one for each group of inputs and output;
* ``qzeros`` int32 ``(groups, N * bits / 32)``: zero points, packed along N, the lowest bits first;
* ``g_idx`` int32 ``(K,)``: the group of each input. With act-order (``desc_act``) neighbours are of
  different groups. Where it is stored it counts, whatever ``desc_act`` says.

In the checkpoint format ``gptq`` zero points are stored less one, modulo 2^bits; in ``gptq_v2`` as
they are. A symmetric quantizer's are all 2^(bits - 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgec.checkpoints.codes import CodesForm
from edgec.checkpoints.quantized.fields import WHOLE_ROW, show
from edgec.checkpoints.quantized.format import Layout, modules
from edgec.checkpoints.quantized.grouped import Grouped, Groups, check_sizes
from edgec.checkpoints.quantized.words import WORD, unpack_across, unpack_along

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray
    from typing_extensions import Self

    from edgec.checkpoints.quantized.fields import Fields
    from edgec.checkpoints.quantized.stored import Stored
    from edgec.parallel import Workspace

_PARTS = ("qweight", "scales", "qzeros", "g_idx")


@dataclass(frozen=True)
class Gptq:
    """GPTQ with one width of codes; see :class:`edgec.checkpoints.quantized.format.Format`.

    Attributes:
        bits: of a code, 4 or 8.
        group_size: -1 for a scale per row.
        act_order: whether groups consist of scattered inputs.
        symmetric: whether all zero points are said to be in the middle of the codes.
        zero_offset: what is to be added to stored zero points.
        text: one line for people.
    """

    bits: int
    group_size: int
    act_order: bool
    symmetric: bool
    zero_offset: int
    text: str

    @classmethod
    def read(cls, fields: Fields) -> Self:
        """From ``quantization_config``."""
        bits = fields.integer("bits")
        fields.only("GPTQ codes of this many bits:", bits, (4, 8))
        written = fields.text("checkpoint_format", "format", default="gptq") or "gptq"
        fields.only("the GPTQ checkpoint format", written, ("gptq", "gptq_v2"))
        if fields.flag("is_marlin_format"):
            raise fields.unsupported("GPTQ codes in the order of Marlin's kernels")
        packed = fields.text("pack_dtype", default="int32").removeprefix("torch.")
        fields.only("GPTQ codes packed into", packed, ("int32",))
        # A rule that begins with "-:" says which modules are not quantized; their tensors do too.
        for rule in fields.objects("dynamic"):
            if not rule.startswith("-:"):
                raise fields.unsupported(f"GPTQ with bits per module (dynamic: {show(rule)})")
        size = fields.group_size("group_size", default=WHOLE_ROW)
        act_order, symmetric = fields.flag("desc_act"), fields.flag("sym", default=True)
        parts = [
            f"{bits} bits",
            "a scale per row" if size == WHOLE_ROW else f"groups of {size}",
            "symmetric" if symmetric else "with zero points",
        ]
        if act_order:
            parts.append("with act-order")
        return cls(bits, size, act_order, symmetric, int(written == "gptq"), ", ".join(parts))

    @property
    def codes(self) -> CodesForm | None:
        """See :attr:`Format.codes`; None for a scale per row, whose length the config doesn't say."""
        if self.group_size == WHOLE_ROW or self.act_order:
            return None
        return CodesForm(self.bits, self.group_size, "float16", zeros=not self.symmetric)

    def layout(self, names: Collection[str]) -> Layout:
        """See :meth:`Format.layout`."""
        there = frozenset(names)
        quantized = modules(names, ".qweight")
        return Layout(
            restored={
                f"{module}.weight": tuple(
                    f"{module}.{part}" for part in _PARTS if f"{module}.{part}" in there
                )
                for module in quantized
            },
            # AutoGPTQ gave every module a bias.
            biases=frozenset(f"{module}.bias" for module in quantized),
        )

    def restore(self, name: str, stored: Stored) -> GptqMatrix:
        """See :meth:`Format.restore`."""
        module = name.removesuffix(".weight")
        qweight = f"{module}.qweight"
        shape = stored.part(qweight, ("I32",)).shape
        per_word = WORD // self.bits
        if len(shape) != 2 or 0 in shape or shape[1] % per_word:
            raise stored.damaged(
                qweight,
                f"has shape {list(shape)}; it needs two axes, the last a multiple of {per_word}",
            )
        inputs = shape[0] * per_word
        size = inputs if self.group_size == WHOLE_ROW else min(self.group_size, inputs)
        groups = Groups(module, shape[1], inputs, self.bits, size)
        check_sizes(groups, stored)
        index = f"{module}.g_idx"
        if self.act_order or index in stored:
            stored.part(index, ("I32",), (inputs,))
        return GptqMatrix(groups, stored, self.zero_offset)


class GptqMatrix(Grouped):
    """The weight of one module.

    Args:
        groups: its form.
        stored: where its parts are.
        zero_offset: what is to be added to stored zero points.
    """

    def __init__(self, groups: Groups, stored: Stored, zero_offset: int) -> None:
        super().__init__(groups, stored)
        self._offset = np.uint8(zero_offset)
        self._index = f"{groups.module}.g_idx"
        self._in_order: bool | None = None if self._index in stored else True

    def codes_into(self, start: int, out: NDArray[np.uint8], scratch: Workspace) -> None:
        """See :meth:`Grouped.codes_into`."""
        count, inputs = out.shape
        words = scratch.array("words", (count, inputs * self.groups.bits // WORD), "<u4")
        name = f"{self.groups.module}.qweight"
        self.stored.words.into(name, start, start + count, words)
        unpack_along(words, self.groups.bits, out, scratch)

    def zeros_into(self, start: int, out: NDArray[np.uint8], scratch: Workspace) -> None:
        """See :meth:`Grouped.zeros_into`."""
        bits = self.groups.bits
        per_word = WORD // bits
        first, last = start // per_word, -(-(start + len(out)) // per_word)
        words = scratch.array("words", (last - first, out.shape[1]), "<u4")
        self.stored.sides.into(f"{self.groups.module}.qzeros", first, last, words)
        unpack_across(words, start, bits, None, out, scratch)
        # A zero point of 0 is stored as -1 in the first format: the sum wraps.
        np.add(out, self._offset, out=out)
        np.bitwise_and(out, np.uint8((1 << bits) - 1), out=out)

    def order(self) -> NDArray[np.int32] | None:
        """See :meth:`Grouped.order`."""
        natural = super().order()
        if self._in_order:
            return natural
        index = np.empty(self.groups.inputs, "<i4")
        self.stored.read(self._index, 0, index)
        if self._in_order is None:
            if index.min() < 0 or index.max() >= self.groups.count:
                raise self.stored.damaged(
                    self._index,
                    f"has groups from {index.min()} to {index.max()}; there are {self.groups.count}",
                )
            inputs = np.arange(self.groups.inputs, dtype=np.int32)
            self._in_order = bool((index == inputs // np.int32(self.groups.size)).all())
        return natural if self._in_order else index
