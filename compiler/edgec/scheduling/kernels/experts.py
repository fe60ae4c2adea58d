"""What every platform's kernels for a mixture of experts are made from.

A *slot* is a token together with one of the experts that were chosen for it: slot ``t * chosen + j``
is the token ``t`` with its expert number ``j``. The experts' matrices lie one after the other, as one
matrix of ``experts * n`` rows.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from edgec.scheduling.kernels.linear import Linear

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.scheduling.kernels.linear import Preparation

ROUTING = "edgec.routing"
"""Attribute of a kernel that chooses experts, as :meth:`Routing.to_json` says it."""
ORDER, TILES = "edgec.expert_order", "edgec.expert_tiles"
"""Attributes of the kernels that group slots by expert, as :meth:`Grouping.to_json` says it."""
EXPERTS = "edgec.experts"
"""Attribute of a kernel that multiplies by experts, as :meth:`Experts.to_json` says it."""

TILE_FIELDS = 3
"""Entries of a tile in :class:`Grouping`'s table: its expert, its first place in the order, and the
place after its last one."""


@dataclass(frozen=True)
class Routing:
    """``logits (m, experts)`` to the ``chosen`` largest: weights float32 and ids int32 ``(m, chosen)``.

    In falling order, the lower index first where two are equal. Logits are float32.

    Attributes:
        experts: how many there are.
        chosen: how many of them.
        normalized: whether the weights are the softmax over the chosen ones; otherwise over all.
    """

    experts: int
    chosen: int
    normalized: bool

    @property
    def name(self) -> str:
        """Of a kernel."""
        return f"choose_{self.chosen}_of_{self.experts}"

    def to_json(self) -> str:
        """Text, the inverse of :meth:`from_json`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Routing:
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Grouping:
    """How slots are brought into the order of their experts, for GPUs.

    Attributes:
        experts: how many there are.
        rows: most slots of a tile.
    """

    experts: int
    rows: int

    def tiles(self, slots: Any) -> Any:
        """Enough tiles for a number of slots, whatever experts they chose: each has one cut short."""
        return slots // self.rows + self.experts

    def to_json(self) -> str:
        """Text, the inverse of :meth:`from_json`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Grouping:
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Experts:
    """``y[s] = x[s // share] @ w[ids[s]].T`` for every slot ``s``.

    Attributes:
        linear: one expert's layer.
        experts: how many there are.
        share: neighbouring slots that read the same row of ``x``.
    """

    linear: Linear
    experts: int
    share: int

    @property
    def all(self) -> Linear:
        """All experts' matrices as one."""
        return replace(self.linear, n=self.linear.n * self.experts)

    @property
    def few(self) -> int:
        """Up to how many slots each reads the weights by itself: so few rarely share an expert."""
        return self.experts // 2

    @property
    def name(self) -> str:
        """Part of a kernel's name."""
        return f"{self.experts}_{self.linear.name}_{self.share}"

    def to_json(self) -> str:
        """Text, the inverse of :meth:`from_json`."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Experts:
        """Read what :meth:`to_json` wrote."""
        data = json.loads(text)
        return cls(Linear(**data.pop("linear")), **data)


class ExpertKernels(Protocol):
    """A platform's kernels for a mixture of experts."""

    @property
    def grouping(self) -> int | None:
        """Rows of a tile, if ``matmul`` of many tokens wants slots grouped before: :class:`Grouping`."""

    def choose(self, routing: Routing) -> Any:
        """The PrimFunc ``(logits (m, experts), weights (m, chosen), ids (m, chosen))``."""

    def group(self, grouping: Grouping) -> Mapping[str, Any]:
        """Two PrimFuncs by name; all their arguments are int32.

        ``order``, ``(ids (s,), order (s,), offsets (experts + 1,))``: the slots of expert 0, then those
        of 1, each in rising order, and where each expert's begin.

        ``tiles``, ``(offsets (experts + 1,), tiles (count, TILE_FIELDS))``: the parts of the order that
        work-groups take, then zeros.
        """

    def preparation(self, experts: Experts, *, slots: int | None) -> Preparation | None:
        """What happens to activations before ``matmul`` reads them.

        Args:
            experts: the layer.
            slots: how many there are, if there is one token.
        """

    def matmul(self, experts: Experts, *, single: bool) -> Any:
        """The PrimFunc ``(x (r, k), ids (s,)[, order, tiles], w[, scales[, zeros]], y (s, n))``.

        With a preparation, its outputs stand in the place of ``x``.

        Args:
            experts: the layer.
            single: whether there is one token, ``s`` therefore constant and there is no grouping.
        """
