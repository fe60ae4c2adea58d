"""Sliding windows: what a sequence keeps of its tokens once there are more than fit.

StreamingLLM, https://arxiv.org/abs/2309.17453: the first few tokens stay, because models put much
of their attention there, and of the rest the latest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgec.models.hf_config import language_config
from edgec.models.rope_config import longest_text

if TYPE_CHECKING:
    from collections.abc import Mapping

_ALWAYS = frozenset({"mistral", "mixtral", "phi3"})
_IF_USED = frozenset({"qwen2", "qwen2_moe", "qwen3", "qwen3_moe"})
OFF = -1
"""What engines read where there is no window."""


@dataclass(frozen=True)
class SlidingWindow:
    """A window as TVM's paged KV cache slides it.

    Attributes:
        size: tokens that the cache keeps of a sequence between two calls.
        sinks: of them, the first ones of the sequence; less than ``size``.
    """

    size: int
    sinks: int

    def kept(self, tokens: int) -> list[int]:
        """Which of a sequence's first ``tokens`` tokens are in the cache, in their order."""
        if tokens <= self.size:
            return list(range(tokens))
        return [*range(self.sinks), *range(tokens - self.size + self.sinks, tokens)]

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> SlidingWindow | None:
        """The window in a library's metadata or a chat config; None where it is off or absent."""
        size = fields.get("sliding_window_size", OFF)
        return None if size == OFF else cls(size, max(0, fields.get("attention_sink_size", 0)))

    @classmethod
    def of_recipe(cls, size: int | None, sinks: int | None) -> SlidingWindow | None:
        """The window that a recipe's ``context`` names, if it names one."""
        return None if size is None else cls(size, sinks or 0)


def window_fields(context_length: int, window: SlidingWindow | None) -> dict[str, int]:
    """What engines read of the context. Where a window slides, its end is nowhere."""
    return {
        "context_window_size": context_length if window is None else OFF,
        "sliding_window_size": OFF if window is None else window.size,
        "attention_sink_size": OFF if window is None else window.sinks,
    }


def trained_window(config: Mapping[str, Any]) -> int | None:
    """How many tokens each token sees, itself among them; None where it sees all before it.

    Args:
        config: a model's ``config.json``. Of architectures whose layers differ in this, layers with
            a window are the model's business, and the answer is None.
    """
    kind, size = config.get("model_type"), config.get("sliding_window")
    windowed = kind in _ALWAYS or (kind in _IF_USED and config.get("use_sliding_window") is True)
    return size if windowed and isinstance(size, int) and size > 0 else None


def longest_context(config: Mapping[str, Any]) -> int | None:
    """Tokens that a context can have; None if the config doesn't say.

    In a longer context than the window that a model was trained with, its tokens would see more
    than they ever did.

    Raises:
        CheckpointError: a number of the rotary embedding is missing or impossible.
    """
    config = language_config(config)
    positions = longest_text(config)
    return None if positions is None else min(positions, trained_window(config) or positions)
