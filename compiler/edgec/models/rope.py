"""Rotary position embedding, in the form TVM's KV cache takes.

RoFormer, https://arxiv.org/abs/2104.09864; Llama 3's frequency scaling is described in
https://arxiv.org/abs/2407.21783, section 3.2; LongRoPE in https://arxiv.org/abs/2402.13753; YaRN, and
before it the linear and the dynamic ("NTK-aware") scaling, in https://arxiv.org/abs/2309.00071.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

LLAMA3 = "llama3"
LINEAR = "linear"
DYNAMIC = "dynamic"
YARN = "yarn"
LONGROPE = "longrope"
ORIGINAL = "original_max_position_embeddings"


@dataclass(frozen=True)
class Rope:
    """Rotary embedding of one model.

    Attributes:
        theta: base of the frequencies.
        rotary_dim: leading dimensions of a head that are rotated.
        scaling: ``rope_type`` and its numbers; empty for the plain embedding.

            * ``linear``: ``factor``, by which all pairs turn slower.
            * ``llama3``: ``factor``, ``low_freq_factor``, ``high_freq_factor`` and
              ``original_max_position_embeddings``.
            * ``dynamic``: ``factor`` and ``original_max_position_embeddings``, beyond which the base
              grows with the context.
            * ``yarn``: ``factor``, by which slow pairs turn slower; ``first`` and ``last``, the pairs
              between which that factor sets in; ``attention_factor``, which multiplies sines and
              cosines; ``original_max_position_embeddings``.
            * ``longrope``: ``short_factor`` and ``long_factor``, each ``rotary_dim / 2`` numbers by
              which a pair turns slower in contexts of up to ``original_max_position_embeddings``
              tokens and in longer ones, and ``attention_factor`` as above.
    """

    theta: float
    rotary_dim: int
    scaling: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain data, the inverse of ``Rope(**data)``."""
        return {"theta": self.theta, "rotary_dim": self.rotary_dim, "scaling": dict(self.scaling)}

    @property
    def kind(self) -> str:
        """``"default"``, or the type of the scaling."""
        return str(self.scaling.get("rope_type", "default"))

    @property
    def has_factors(self) -> bool:
        """Whether each pair has a factor of its own, and sines and cosines have one."""
        return self.kind in (YARN, LONGROPE)

    @property
    def position_scale(self) -> float:
        """What positions are multiplied by."""
        return 1 / float(self.scaling["factor"]) if self.kind == LINEAR else 1.0

    @property
    def amplitude(self) -> float:
        """What sines and cosines are multiplied by."""
        return float(self.scaling["attention_factor"]) if self.has_factors else 1.0

    def at_length(self, context_length: int) -> Rope:
        """The embedding in a context of so many tokens, whatever the length of a text in it.

        Keys are rotated once, when they are appended, so all tokens of a library turn alike. Of
        LongRoPE both factors become the same: the long ones where a sequence may become longer than
        the original length, the short ones elsewhere. The dynamic scaling becomes a plain embedding
        with the base that a text as long as the context has.
        """
        if self.kind == DYNAMIC:
            factor, original = self.scaling["factor"], self.scaling[ORIGINAL]
            stretch = factor * max(context_length, original) / original - (factor - 1)
            theta = self.theta * stretch ** (self.rotary_dim / (self.rotary_dim - 2))
            return Rope(theta, self.rotary_dim)
        if self.kind != LONGROPE:
            return self
        long = context_length > self.scaling[ORIGINAL]
        chosen = self.scaling["long_factor" if long else "short_factor"]
        return replace(
            self, scaling={**self.scaling, "long_factor": chosen, "short_factor": chosen}
        )

    def factors(self) -> list[float]:
        """By how much slower each pair turns than in the plain embedding: ``rotary_dim / 2`` numbers.

        What depends on the context is settled by :meth:`at_length`.
        """
        pairs = range(self.rotary_dim // 2)
        if self.kind == LONGROPE:
            long, short = self.scaling["long_factor"], self.scaling["short_factor"]
            assert long == short, "at_length says which factors there are"
            return list(short)
        assert self.kind != DYNAMIC, "at_length says which base there is"
        if self.kind == YARN:
            return [_yarn(pair, self.scaling) for pair in pairs]
        if self.kind == LLAMA3:
            return [_llama3(turn, self.scaling) for turn in self._plain()]
        return [1 / self.position_scale for _ in pairs]

    def inverse_frequencies(self) -> list[float]:
        """Radians by which a position turns each pair of dimensions: ``rotary_dim / 2`` of them."""
        return [turn / factor for turn, factor in zip(self._plain(), self.factors(), strict=True)]

    def _plain(self) -> list[float]:
        return [self.theta ** (-2 * pair / self.rotary_dim) for pair in range(self.rotary_dim // 2)]


def _llama3(turn: float, scaling: dict[str, Any]) -> float:
    """Slow turns become slower by a factor, fast ones stay, others lie between."""
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    turns = scaling[ORIGINAL] * turn / (2 * math.pi)
    kept = min(1.0, max(0.0, (turns - low) / (high - low)))
    return _slowed(kept, scaling)


def _yarn(pair: int, scaling: dict[str, Any]) -> float:
    """Section 3.2 of the paper, where the ramp is one over the numbers of pairs."""
    first, last = scaling["first"], scaling["last"]
    kept = 1 - min(1.0, max(0.0, (pair - first) / (last - first)))
    return _slowed(kept, scaling)


def _slowed(kept: float, scaling: dict[str, Any]) -> float:
    """A factor between 1, where all of a turn is kept, and that of the scaling."""
    return 1 / (kept + (1 - kept) / float(scaling["factor"]))
