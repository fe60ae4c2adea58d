"""A small recipe, and what happens when it is changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgec.errors import UsageError
from edgec.recipe import LoadedRecipe, load_recipe

MINIMAL = """\
schema: edgec.recipe/v1
name: small
model: {source: small}
quantization:
  scheme: q4f16_1
targets: [host]
"""


def load(text: str, *overrides: str) -> LoadedRecipe:
    """Load ``text`` from the file ``r.yaml`` of the current folder."""
    path = Path("r.yaml")
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, overrides)


def problem(text: str, *overrides: str) -> str:
    """The message with which ``text`` is refused."""
    with pytest.raises(UsageError) as caught:
        load(text, *overrides)
    return str(caught.value)
