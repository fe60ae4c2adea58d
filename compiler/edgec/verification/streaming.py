"""Attention of a transformers model as TVM's paged KV cache computes it where a window slides.

The tokens of one call see each other, up to their own, and all that is kept of those before; what is
kept changes between calls only. Positions count what is kept, so that keys are stored as they were
projected and rotated anew in every call. See docs/decisions/0014-sliding-window.md.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from edgec.verification.rounded_cache import held

if TYPE_CHECKING:
    from edgec.models.window import SlidingWindow

ATTENTION = "edgec_sliding"
"""What the attention is called among those of transformers."""
_STREAM = "edgec_stream"


class Stream:
    """What the layers of a model keep of one sequence.

    Args:
        model: of transformers, made with ``attn_implementation=ATTENTION``. From then on it
            computes with these streams only.
        window: what is kept between two calls.
    """

    def __init__(self, model: Any, window: SlidingWindow) -> None:
        self._window = window
        self._rotary = model.base_model.rotary_emb
        self._angles = self._rotary.forward
        # The layers themselves rotate by nothing: positions are known in the attention only.
        self._rotary.forward = self._no_rotation
        self._kept: dict[int, tuple[Any, Any]] = {}
        self._stored = ""
        for module in model.modules():
            if hasattr(module, "layer_idx"):
                setattr(module, _STREAM, self)

    def clear(self, stored: str = "") -> None:
        """Begin a new sequence.

        Args:
            stored: how its keys and values are held, see :func:`~edgec.verification.rounded_cache.held`.
        """
        self._kept.clear()
        self._stored = stored

    def attend(
        self, module: Any, query: Any, key: Any, value: Any, scaling: float
    ) -> tuple[Any, None]:
        """Queries ``(1, heads, new, d)`` against what is kept and the new keys and values.

        Returns:
            ``(1, new, heads, d)``.
        """
        import torch  # noqa: PLC0415 - an extra

        key, value = held(key, self._stored), held(value, self._stored)
        if module.layer_idx in self._kept:
            past = self._kept[module.layer_idx]
            key, value = (torch.cat(pair, dim=2) for pair in zip(past, (key, value), strict=True))
        total, new = key.shape[2], query.shape[2]
        rows = torch.tensor(self._window.kept(total))
        self._kept[module.layer_idx] = key[:, :, rows], value[:, :, rows]
        rotate = sys.modules[type(module).__module__].apply_rotary_pos_emb
        cosine, sine = self._angles(key, torch.arange(total)[None])
        key = rotate(key, key, cosine, sine)[0]
        query = rotate(query, query, cosine[:, -new:], sine[:, -new:])[0]
        group = query.shape[1] // key.shape[1]
        key, value = (item.repeat_interleave(group, dim=1) for item in (key, value))
        scores = query @ key.transpose(2, 3) * scaling
        hidden = torch.ones(new, total, dtype=torch.bool).triu(total - new + 1)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
        return (weights @ value).transpose(1, 2).contiguous(), None

    def _no_rotation(self, hidden: Any, position_ids: Any) -> tuple[Any, Any]:
        cosine, sine = self._angles(hidden, position_ids)
        return cosine.new_ones(cosine.shape), sine.new_zeros(sine.shape)


def register(transformers: Any) -> None:
    """Make the attention known to transformers under the name ``ATTENTION``."""
    transformers.AttentionInterface.register(ATTENTION, _attention)


def _attention(
    module: Any, query: Any, key: Any, value: Any, _mask: Any, scaling: float, **_options: Any
) -> tuple[Any, None]:
    stream: Stream = getattr(module, _STREAM)
    return stream.attend(module, query, key, value, scaling)
