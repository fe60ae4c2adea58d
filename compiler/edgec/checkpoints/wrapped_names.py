"""Names of the tensors of models that have a language model inside.

transformers has wrapped these models since version 4.52: ``model.language_model.layers.0`` is what
checkpoints before and after call ``model.layers.0``, and ``model.visual`` is ``visual``. Which of the two
a file has depends on what wrote it; edgec calls both by the shorter name.
"""

from __future__ import annotations

from typing import Protocol


class Names(Protocol):
    """What knows which names are there."""

    def __contains__(self, name: str, /) -> bool:
        """Whether a tensor of this name is."""


_WRAPPED = {"model.language_model.": "model.", "model.visual.": "visual."}


def plain_name(stored: str) -> str:
    """What edgec calls a stored tensor."""
    for wrapped, plain in _WRAPPED.items():
        if stored.startswith(wrapped):
            return plain + stored.removeprefix(wrapped)
    return stored


def stored_name(name: str, held: Names) -> str:
    """What a file calls a tensor; ``name`` itself if it holds no tensor of that name.

    Args:
        name: see :func:`plain_name`.
        held: the names of the tensors that are there.
    """
    if name in held:
        return name
    for wrapped, plain in _WRAPPED.items():
        if name.startswith(plain) and (longer := wrapped + name.removeprefix(plain)) in held:
            return longer
    return name
