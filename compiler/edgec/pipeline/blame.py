"""Say where a failure comes from in the user's own files.

A stage sees values, not the recipe they stood in, and copies, not the model's files. Its errors name
the field or the copy; here they get the line of the recipe and the original file.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from edgec.errors import EdgecError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgec.checkpoints import ModelSource
    from edgec.recipe import Loaded

_FIELD = re.compile(r"[a-z_]+(\.[a-z0-9_]+)+")
_CONFIG = "config.json: "


@contextlib.contextmanager
def blaming(
    loaded: Loaded, source: ModelSource | None = None, cache: Path | None = None
) -> Iterator[None]:
    """Improve the ``where`` of errors that pass through.

    Args:
        loaded: whose fields errors may name.
        source: the model whose config and files errors may name.
        cache: root of the store that holds copies of the model's small files.
    """
    try:
        yield
    except EdgecError as error:
        where = _origin(error.where, loaded, source, cache)
        if where == error.where:
            raise
        raise type(error)(error.what, where=where, remedy=error.remedy) from error


def _origin(where: str, loaded: Loaded, source: ModelSource | None, cache: Path | None) -> str:
    parts = where.split(".")
    if _FIELD.fullmatch(where) and parts[0] in type(loaded.recipe).model_fields:
        path = tuple(int(part) if part.isdigit() else part for part in parts)
        return f"{loaded.document.place(path)}: {where}"
    if source is not None and where.startswith(_CONFIG):
        return f"{source.config_file}: {where.removeprefix(_CONFIG)}"
    if source is not None and cache is not None:
        copies = re.escape(str(cache)) + r"/(?:stages/checkpoint|tmp)/[^/]+/out/"
        return re.sub(copies, f"{source.folder}/", where)
    return where
