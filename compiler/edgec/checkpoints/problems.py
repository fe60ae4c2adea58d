"""Several findings about one checkpoint as one error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Sequence

_LISTED = 10


def report(problems: Sequence[str], *, where: str, summary: str, remedy: str) -> None:
    """Raise the problems as one error, if there are any.

    One problem is one sentence. Several are a list under a line that counts them and says what to
    do; the list is cut after ten.

    Args:
        problems: one clause each, ``"lm_head.weight: missing"``.
        where: the checkpoint's folder, file or source.
        summary: what follows the count, ``"tensors don't fit config.json"``.
        remedy: what to do.

    Raises:
        CheckpointError: there is at least one problem.
    """
    if not problems:
        return
    if len(problems) == 1:
        raise CheckpointError(problems[0], where=where, remedy=remedy)
    lines = list(problems[:_LISTED])
    if len(problems) > _LISTED:
        lines.append(f"and {len(problems) - _LISTED:,} more")
    listing = "".join(f"\n  {line}" for line in lines)
    raise CheckpointError(f"{len(problems):,} {summary}; {remedy}:{listing}", where=where)
