"""What the READMEs of packages have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec import suggest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.packaging.model import PackagedModel

_GB = 10**9


def title(models: Sequence[PackagedModel], platform: str) -> str:
    """The heading: what is in the package."""
    return f"{suggest.listing(model.model_id for model in models)} for {platform}"


def models_table(models: Sequence[PackagedModel]) -> str:
    """A table of the models with the names that code needs, and their sizes."""
    rows = [
        f"| `{model.model_id}` | `{model.model_lib}` | {gigabytes(model.nbytes)}"
        f" | {gigabytes(model.estimated_vram_bytes)} |"
        for model in models
    ]
    return "\n".join(
        ["| model | library | files | memory at full context |", "|---|---|---|---|", *rows]
    )


def gigabytes(count: int) -> str:
    """Bytes as the stores count them: ``"1.25 GB"``, ``"3.3 MB"``."""
    return f"{count / _GB:.2f} GB" if count >= _GB else f"{count / 10**6:.1f} MB"
