"""The files that packages carry, with ``@NAME@`` where a package fills something in."""

from __future__ import annotations

import re
from pathlib import Path

_FOLDER = Path(__file__).parent
_PLACE = re.compile(r"@([A-Z_]+)@")


def template(name: str, **values: str) -> str:
    """A template's text with every place filled in.

    Args:
        name: path below this folder.
        values: text by the place's name in lower case; each is used.
    """
    text = (_FOLDER / name).read_text(encoding="utf-8")
    places = {found.lower() for found in _PLACE.findall(text)}
    assert places == set(values), (name, places ^ set(values))
    return _PLACE.sub(lambda found: values[found[1].lower()], text)
